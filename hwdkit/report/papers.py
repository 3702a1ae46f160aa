"""The papers of the methods, for those who publish a network and owe a citation."""

from __future__ import annotations

from collections.abc import Iterable

PAPERS: dict[str, str] = {
    "kd": "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015.",
    "cwd": "Shu et al. Channel-wise Knowledge Distillation for Dense Prediction. ICCV 2021.",
    "hwd": "Sun, Ye, Chen, Feng, Wang, Chen. Holistic Weighted Distillation for Semantic Segmentation. "
    "ICME 2023. doi:10.1109/ICME55011.2023.00075",
    "pairwise": "Liu et al. Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019.",
    "holistic": "Liu et al. Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019.",
    "ifv": "Wang et al. Intra-class Feature Variation Distillation for Semantic Segmentation. ECCV 2020.",
    "cirkd_minibatch": "Yang et al. Cross-Image Relational Knowledge Distillation for Semantic Segmentation. "
    "CVPR 2022.",
    "cirkd_memory": "Yang et al. Cross-Image Relational Knowledge Distillation for Semantic Segmentation. "
    "CVPR 2022.",
    "dist": "Huang et al. Knowledge Distillation from A Stronger Teacher. NeurIPS 2022.",
    "mgd": "Yang et al. Masked Generative Distillation. ECCV 2022.",
    "mimic": "Romero et al. FitNets: Hints for Thin Deep Nets. ICLR 2015.",
    "at": "Zagoruyko, Komodakis. Paying More Attention to Attention: Improving the Performance of "
    "Convolutional Neural Networks via Attention Transfer. ICLR 2017.",
    "local": "Xie et al. Improving Fast Segmentation With Teacher-Student Learning. BMVC 2018.",
    "af_dcd": "Fan et al. Augmentation-free Dense Contrastive Knowledge Distillation for Efficient Semantic "
    "Segmentation. NeurIPS 2023.",
    "pkd": "Cao et al. PKD: General Distillation Framework for Object Detectors via Pearson Correlation "
    "Coefficient. NeurIPS 2022.",
}
"""Key of `hwdkit.losses.LOSSES` -> its paper; a test compares the keys. Cross entropy owes nobody."""


def papers_of(losses: Iterable[str]) -> list[str]:
    """The papers of some losses, each once, in their order."""
    return list(dict.fromkeys(PAPERS[loss] for loss in losses if loss in PAPERS))
