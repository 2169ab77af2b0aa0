#!/bin/sh
# The cables of a test, made at each boot: this machine is one site, the namespace `branch` the other.
#
#   lan-a: eth0 --- lan0 [this machine] wan0 --- wan0 [branch] lan0 --- eth0 :lan-b
set -e
for space in lan-a branch lan-b; do ip netns add $space; ip -n $space link set lo up; done
# Addresses of their own: those that the kernel draws, and what IPv6 makes of them, change with each boot.
ip link add lan0 address 02:00:5e:10:00:01 type veth peer name eth0 netns lan-a
ip link add wan0 address 02:00:5e:10:00:02 type veth peer name wan0 netns branch
ip -n branch link add lan0 type veth peer name eth0 netns lan-b
ip address add 203.0.113.1/24 dev wan0
ip -n branch address add 203.0.113.2/24 dev wan0
ip -n lan-a address add 10.99.0.1/24 dev eth0
ip -n lan-b address add 10.99.0.2/24 dev eth0
for name in lan0 wan0; do ip link set $name up; ip -n branch link set $name up; done
for space in lan-a lan-b; do ip -n $space link set eth0 up; done
