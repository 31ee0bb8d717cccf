"""Delta distillation: cheap students between key frames, see `method`; the network, its blocks and students."""
