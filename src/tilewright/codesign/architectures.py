"""Layers of known networks, made from what their papers say of them: widths, depths, strides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tilewright.codesign.layer import Layer


def convolution_layer(name: str, outputs: int, inputs: int, size: int, kernel: int = 1, stride: int = 1, count: int = 1) -> Layer:
    """A square convolution with ``size`` x ``size`` outputs."""
    sizes = {"K": outputs, "C": inputs, "P": size, "Q": size, "R": kernel, "S": kernel}
    return Layer(name, sizes, {"SH": stride, "SW": stride}, count)


def resnet50() -> list[Layer]:
    """ResNet-50 on 224 x 224 images, strides in the 3 x 3 convolutions, with its classifier."""
    conv = convolution_layer
    layers, inputs, size = [conv("stem", 64, 3, 112, 7, 2)], 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        stride = 1 if stage == 2 else 2
        layers += [
            conv(f"stage{stage}.shortcut", 4 * width, inputs, size, 1, stride),
            conv(f"stage{stage}.first.reduce", width, inputs, size * stride),
            conv(f"stage{stage}.first.3x3", width, width, size, 3, stride),
            conv(f"stage{stage}.expand", 4 * width, width, size, count=blocks),
            conv(f"stage{stage}.reduce", width, 4 * width, size, count=blocks - 1),
            conv(f"stage{stage}.3x3", width, width, size, 3, count=blocks - 1),
        ]
        inputs, size = 4 * width, size // 2
    return [*layers, Layer.gemm("classifier", 1, 1000, inputs)]


def unet() -> list[Layer]:
    """U-Net as published: 572 x 572 images, convolutions without padding, 2 x 2 convolutions after upsampling."""
    layers, channels, size = [], 1, 572
    widths = (64, 128, 256, 512, 1024)
    for level, width in enumerate(widths):
        for n, inputs in enumerate((channels, width)):
            size -= 2
            layers.append(convolution_layer(f"down{level}.{n}", width, inputs, size, 3))
        channels, size = width, size // 2 if level < len(widths) - 1 else size
    for level, width in enumerate(reversed(widths[:-1])):
        size *= 2
        layers.append(convolution_layer(f"up{level}", width, 2 * width, size, 2))
        for n, inputs in enumerate((2 * width, width)):
            size -= 2
            layers.append(convolution_layer(f"up{level}.{n}", width, inputs, size, 3))
    return [*layers, convolution_layer("segments", 2, 64, size)]


def retinanet(depth: int = 1) -> list[Layer]:
    """RetinaNet's pyramid and heads over ResNet features of 224 x 224 images, ``depth`` hidden layers in each of the two heads.

    The network has four; with one it is the workload that co-design papers publish.
    """
    layers, classes, anchors = [], 80, 9
    backbone = {28: 512, 14: 1024, 7: 2048}
    layers += [convolution_layer("p6", 256, 2048, 4, 3, 2), convolution_layer("p7", 256, 256, 2, 3, 2)]
    for size in (28, 14, 7, 4, 2):
        layers += [
            convolution_layer(f"lateral{size}", 256, backbone.get(size, 256), size),
            convolution_layer(f"hidden{size}", 256, 256, size, 3, count=2 * depth),
            convolution_layer(f"boxes{size}", 4 * anchors, 256, size, 3),
            convolution_layer(f"classes{size}", classes * anchors, 256, size, 3),
        ]
    return layers


def transformer(
    width: int, depth: int, heads: int, hidden: int, tokens: int, context: int | None = None, gated: bool = False
) -> list[Layer]:
    """``depth`` blocks of attention and feed-forward on ``tokens`` new tokens (1: products with vectors).

    ``context`` is how many tokens are attended to (default: the new ones). With ``gated`` the feed-forward part has a third matrix.
    """
    seen, head = context or tokens, width // heads
    return [
        Layer.gemm("projections", tokens, width, width, count=4 * depth),
        Layer.gemm("scores", tokens, seen, head, count=heads * depth, weights=False),
        Layer.gemm("values", tokens, head, seen, count=heads * depth, weights=False),
        Layer.gemm("up", tokens, hidden, width, count=(2 if gated else 1) * depth),
        Layer.gemm("down", tokens, width, hidden, count=depth),
    ]


def bert_base(tokens: int = 128) -> list[Layer]:
    """All products of BERT-base."""
    return transformer(768, 12, 12, 3072, tokens)


def bert_layer(tokens: int = 128) -> list[Layer]:
    """One block of BERT-base, of which one head and two projections: the workload that co-design papers publish."""
    (projections, scores, values, up, down), head = transformer(768, 1, 12, 3072, tokens), 1
    parts = ((projections, 2), (scores, head), (values, head), (up, 1), (down, 1))
    return [replace(x, count=count) for x, count in parts]


def gpt2(tokens: int = 128, context: int | None = None) -> list[Layer]:
    """GPT-2 (124 M) with its output layer for the last token."""
    return [*transformer(768, 12, 12, 3072, tokens, context), Layer.gemm("vocabulary", 1, 50257, 768)]


def llama2_7b(tokens: int = 128, context: int | None = None) -> list[Layer]:
    """Llama 2 (7 B) with its output layer for the last token."""
    return [*transformer(4096, 32, 32, 11008, tokens, context, gated=True), Layer.gemm("vocabulary", 1, 32000, 4096)]


def vit_b16() -> list[Layer]:
    """ViT-B/16 on 224 x 224 images: 196 patches and the class token."""
    patches = convolution_layer("patches", 768, 3, 14, 16, 16)
    return [patches, *transformer(768, 12, 12, 3072, 197), Layer.gemm("classifier", 1, 1000, 768)]


#: Networks by the name that the command line knows.
NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "resnet50": resnet50,
    "unet": unet,
    "retinanet": retinanet,
    "retinanet-full": lambda: retinanet(4),
    "bert": bert_base,
    "bert-layer": bert_layer,
    "gpt2": gpt2,
    "gpt2-decode": lambda: gpt2(1, 512),
    "llama2-7b": llama2_7b,
    "llama2-7b-decode": lambda: llama2_7b(1, 512),
    "vit-b16": vit_b16,
}


def products(batches: tuple[int, ...] = (1, 8), tokens: tuple[int, ...] = (1, 128, 512)) -> Iterator[Layer]:
    """Weights of GPT-2, ViT-B/16 and Llama 2 with the rows of these sequences: products with matrices, and with vectors for one row."""
    shapes = {"gpt2": (768, 3072), "vit-b16": (768, 3072), "llama2-7b": (4096, 11008)}
    for name, (width, hidden) in shapes.items():
        for rows in sorted({b * t for b in batches for t in tokens}):
            for part, n, k in (("projection", width, width), ("up", hidden, width), ("down", width, hidden)):
                yield Layer.gemm(f"{name}.{part}.{rows}", rows, n, k)
