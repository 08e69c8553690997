"""Every architecture that is described, read off its module in Transformers 5.

A test compares the config fields that those modules read with what is handled here.
"""

from llmos.drivers.native.fused.architectures.gemma import GEMMAS
from llmos.drivers.native.fused.architectures.gpt import GPTS
from llmos.drivers.native.fused.architectures.interleaved import INTERLEAVED
from llmos.drivers.native.fused.architectures.layer_normed import LAYER_NORMED
from llmos.drivers.native.fused.architectures.llama import LLAMAS
from llmos.drivers.native.fused.architectures.post_normed import POST_NORMED

FAMILIES = LLAMAS | GEMMAS | POST_NORMED | INTERLEAVED | LAYER_NORMED | GPTS
"""By the name of the architecture."""
