"""Networks: timm backbones, segmentation heads and the input contract. The only package that imports timm."""
