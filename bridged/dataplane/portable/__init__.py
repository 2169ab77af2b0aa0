"""The data plane in pure Python: the readable specification, and the fallback without a compiled one.

A frame out: `loop`, `lan_to_wan/reader`, `lan_to_wan/forwarding`, `policy/from_lan`,
`lan_to_wan/peer_batches`, `lan_to_wan/batch_sealer`, `transport/udp`. A frame in: `loop`, `transport/udp`,
`wan_to_lan/receiver`, `wan_to_lan/opener`, `wan_to_lan/deliver`, `policy/from_peer`,
`wan_to_lan/tap_writer`. `directions` puts them together; `plane` is the contract.
Nothing is imported here: beside the native build this one costs no memory.
"""
