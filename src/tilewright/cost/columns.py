"""The columns of a statement's feature row, in order; they name what :mod:`tilewright.cost.features` computes.

Magnitudes are given as log2(1 + x); flags, positions and counts of loops as they are. The groups follow
the Ansor lineage (164 columns), then the class of the operator (10), then the instruction (20).
Change :data:`VERSION` whenever the meaning of a column changes: records and models carry it.
"""

from __future__ import annotations

VERSION = 3

#: Operations executed by the statement over all iterations, by kind (a product that is added counts as mad).
OPERATIONS = (
    *(f"{t}_{k}" for t in ("float", "int") for k in ("mad", "addsub", "mul", "divmod", "cmp", "math", "other")),
    *("bool_op", "select_op"),
)
#: Where in the nest the innermost loop of an annotation stands. "mixed": it marks both result and summed loops.
POSITIONS = ("none", "inner_spatial", "middle_spatial", "outer_spatial", "inner_reduce", "middle_reduce", "outer_reduce", "mixed")
#: For each of vector, unroll, parallel: number of loops, product of their trips, trips of the innermost, its position.
ANNOTATIONS = tuple(f"{a}_{c}" for a in ("vector", "unroll", "parallel") for c in ("num", "prod", "len", *(f"pos_{p}" for p in POSITIONS)))
#: Loops bound to the machine's units: whether any is, trips of up to three on the outer and the inner kind of unit, the rest's product.
BINDINGS = ("bound", *(f"bound_outer_{n}" for n in range(3)), *(f"bound_inner_{n}" for n in range(3)), "bound_rest")
#: Buffers described, largest first.
BUFFERS = 5
#: Of one buffer. ``bytes`` and ``lines`` count every step's, ``unique_*`` each once; ``reuse_*``: to the nearest reuse
#: (another iteration of a loop, or another statement), in iterations and bytes of everything touched between; ``*_per_reuse``:
#: divided by the uses; ``stride``: elements between neighbouring iterations of the innermost loop.
BUFFER = (
    *("read", "write", "read_write"),
    *("bytes", "unique_bytes", "lines", "unique_lines"),
    *("reuse_multiple", "reuse_serial", "reuse_none"),
    *("reuse_iterations", "reuse_bytes", "reuse_count"),
    *("bytes_per_reuse", "unique_bytes_per_reuse", "lines_per_reuse", "unique_lines_per_reuse"),
    "stride",
)
#: Operations per byte touched, at ten depths from the whole program (0) to the innermost loop's body (9).
INTENSITY = tuple(f"intensity_{n}" for n in range(10))
#: The buffer written, when the program allocates it: bytes, bytes times allocations, allocations, iterations for each.
ALLOCATION = ("alloc_bytes", "alloc_total", "alloc_count", "alloc_inner")
#: Iterations of the loops outside the innermost one, number of loops, steps unrolled together.
NEST = ("outer_prod", "num_loops", "auto_unroll")
STATEMENT = (
    *OPERATIONS,
    *ANNOTATIONS,
    *BINDINGS,
    *(f"buffer{n}_{c}" for n in range(BUFFERS) for c in BUFFER),
    *INTENSITY,
    *ALLOCATION,
    *NEST,
)
#: Class of the operator (all zero: another).
CLASSES = ("dense", "batch_matmul", "conv1d", "conv2d", "conv3d", "grouped", "transposed", "reduction", "normalisation", "elementwise")
#: Statements of an instruction's semantics. For three operands: level of the memory it is in, of the memory that one is filled
#: from, elements of the tile, bits of an element, dimensions of the physical layout. Of the computation: whether an instruction
#: is used, its tile along the result and along the sum, bits of inputs and of the result.
TRANSFERS = tuple(f"operand{n}_{c}" for n in range(3) for c in ("level", "parent_level", "tile", "bits", "layout"))
ASSIGNMENT = (*TRANSFERS, "instruction", "instruction_result", "instruction_sum", "instruction_bits_in", "instruction_bits_out")

COLUMNS = (*STATEMENT, *(f"class_{c}" for c in CLASSES), *ASSIGNMENT)
COLUMN = {name: n for n, name in enumerate(COLUMNS)}

#: Columns that are not magnitudes: they are stored as they are.
PLAIN = frozenset(
    n
    for n in COLUMNS
    if "_pos_" in n
    or n.endswith(("_num", "_read", "_write", "_read_write", "_reuse_multiple", "_reuse_serial", "_reuse_none", "_level", "_layout"))
    or n.startswith("class_")
    or n in ("bound", "num_loops", "instruction")
)
assert len(STATEMENT) == 164 and len(COLUMNS) == 194, (len(STATEMENT), len(COLUMNS))
