"""Who is there: peers, their keys, and the stations behind them."""
