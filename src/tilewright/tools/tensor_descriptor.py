"""``from tilewright.tools.tensor_descriptor import TensorDescriptor``."""

from __future__ import annotations

from tilewright.runtime.descriptors import TensorDescriptor as TensorDescriptor
