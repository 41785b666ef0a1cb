"""Timing networks, and pieces of them, as they will run.

- `timing`: the manners of measuring; `measure_latency` times one network.
- `backends`: what runs a network: torch, `torch.compile`, ONNX Runtime (`onnx_runtime`).
- `measuring`: a whole latency table; `grids` says at which widths.
- `built`: is a winner, or a finetuned network, as fast as predicted?
"""
