"""Networks for machines without hwdkit: ONNX, torch.export, 8 bit."""
