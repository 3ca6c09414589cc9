"""The dual-stream network in PyTorch: networks, losses, data loading, training, reconstruction."""
