"""Block programs that are refused, each with the words its error must have: see test_refusals."""

from __future__ import annotations

import numpy as np

import tilewright as triton
import tilewright.language as tl


def plain(x):
    return x + 1


@triton.jit
def endless(x):
    return endless(x)


@triton.jit
def while_moves_pointers(x, n, B: tl.constexpr):
    while tl.load(x) > 0.5:  # pointer 'x' moves in a while loop | keep an offset
        x += 1


@triton.jit
def while_forever(x, n, B: tl.constexpr):
    i = 0
    while i < n:  # never ends | moves nothing towards the end
        tl.store(x + i, 1.0)
        i -= 1


@triton.jit
def while_of_blocks(x, n, B: tl.constexpr):
    i = tl.arange(0, B)
    while i < n:  # the condition is a block of shape [16] | tl.max
        i += B


@triton.jit
def leaves_what_is_unrolled(x, n, B: tl.constexpr):
    for _ in tl.static_range(3):
        break  # break is not supported here | not unrolled


@triton.jit
def too_few_offsets(x, n, B: tl.constexpr):
    d = tl.make_tensor_descriptor(x, [n, n], [n, 1], [B, B])
    d.load([0])  # 1 offsets into a tensor descriptor of 2 dimensions


@triton.jit
def padded_otherwise(x, n, B: tl.constexpr):
    tl.make_tensor_descriptor(x, [n], [1], [B], "nan")  # padding_option 'nan' of a tensor descriptor is not supported


@triton.jit
def described_pointer(x, n, B: tl.constexpr):
    tl.load_tensor_descriptor(x, [0])  # takes a tensor descriptor | tl.make_tensor_descriptor


@triton.jit
def eighth_of_precision(x, n, B: tl.constexpr):
    tl.zeros((B,), tl.float8e5)  # tl.float8e5 is not an element type of this hardware | tl.float16


@triton.jit
def unknown_word(x, n, B: tl.constexpr):
    tl.lod(x)  # there is no 'lod' | the words of the language are


@triton.jit
def sorts_rows(x, n, B: tl.constexpr):
    at = tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :]
    tl.sort(tl.load(x + at, mask=at < n), dim=0)  # tl.sort along dimension 0 of 2: only the last one is sorted | tl.trans


@triton.jit
def prints_blocks(x, n, B: tl.constexpr):
    tl.device_print("x", tl.load(x + tl.arange(0, B)))  # tl.device_print is not supported | block_ir


@triton.jit
def takes_a_lock(x, n, B: tl.constexpr):
    while tl.atomic_cas(x, 0, 1) == 1:  # tl.atomic_cas is not supported | one program that writes each element
        pass


@triton.jit
def uses_what_was_there(x, n, B: tl.constexpr):
    old = tl.atomic_add(x, 1.0)
    tl.store(x + 1, old)  # tl.atomic_add gives nothing here | tl.load


@triton.jit
def assembles(x, n, B: tl.constexpr):
    tl.inline_asm_elementwise("nop", "=r,r", [tl.load(x)], tl.float32, True, 1)  # tl.inline_asm_elementwise is not supported


@triton.jit
def scales_blocks(x, n, B: tl.constexpr):
    tl.dot_scaled(x, x, "e2m1", x, x, "e2m1")  # tl.dot_scaled is not supported | tl.dot of converted blocks


@triton.jit
def splits_in_four(x, n, B: tl.constexpr):
    tl.split(tl.load(x + tl.arange(0, B)))  # its last dimension is not 2 | tl.reshape


@triton.jit
def draws_by_floats(x, n, B: tl.constexpr):
    tl.rand(n, tl.load(x + tl.arange(0, B)))  # offsets of random numbers are f32, not integers | tl.arange


@triton.jit
def scans_with_nothing(x, n, B: tl.constexpr):
    tl.associative_scan(tl.load(x + tl.arange(0, B)), 0, None)  # combine_fn is None, not a function | tilewright.jit


@triton.jit
def first_of_two(a, b):
    return a, b


@triton.jit
def scans_to_pairs(x, n, B: tl.constexpr):
    tl.associative_scan(tl.load(x + tl.arange(0, B)), 0, first_of_two)  # combine_fn returns 2 values for 1 blocks


@triton.jit
def counts_floats(x, n, B: tl.constexpr):
    tl.histogram(tl.load(x + tl.arange(0, B)), 4)  # it is for integers in one dimension | tl.int32


@triton.jit
def gathers_otherwise(x, n, B: tl.constexpr):
    tl.gather(tl.load(x + tl.arange(0, B)), tl.zeros((2, 2), tl.int32), 0)  # the index has the rank of the block


@triton.jit
def asserts_what_is_wrong(x, n, B: tl.constexpr):
    tl.static_assert(B > 100, "large blocks")  # tl.static_assert failed: large blocks


@triton.jit
def pointers_from_memory(x, n, B: tl.constexpr):
    p = tl.load(x).to(tl.pointer_type(tl.float32))  # an address that has no array behind it cannot be checked | tilewright.pointers
    tl.store(p, 0.0)


@triton.jit
def not_constexpr(x, n, B: tl.constexpr):
    tl.arange(0, n)  # the end of tl.arange must be a constexpr; 10 is a run-time argument | annotate the parameter


@triton.jit
def not_a_power(x, n, B: tl.constexpr):
    tl.arange(0, B + 1)  # 17 elements, which is not a power of two | next_power_of_2


@triton.jit
def empty_range(x, n, B: tl.constexpr):
    tl.arange(B, B)  # is empty


@triton.jit
def no_broadcast(x, n, B: tl.constexpr):
    tl.arange(0, B) + tl.arange(0, 2 * B)  # 16 and 32 do not broadcast | x[:, None]


@triton.jit
def wrong_product(x, n, B: tl.constexpr):
    a = tl.zeros((B, 2 * B), tl.float32)
    tl.dot(a, a)  # tl.dot of shapes [16, 32] and [16, 32] | tl.trans


@triton.jit
def mixed_product(x, n, B: tl.constexpr):
    tl.dot(tl.zeros((B, B), tl.float32), tl.zeros((B, B), tl.float16))  # both operands have one type


@triton.jit
def wrong_accumulator(x, n, B: tl.constexpr):
    a = tl.zeros((B, B), tl.float32)
    tl.dot(a, a, tl.zeros((B, 2 * B), tl.float32))  # the accumulator of tl.dot has shape [16, 32]


@triton.jit
def stores_to_a_number(x, n, B: tl.constexpr):
    tl.store(n + tl.arange(0, B), 1.0)  # tl.store takes a pointer, not i32[16] | x_ptr + offsets


@triton.jit
def float_offset(x, n, B: tl.constexpr):
    tl.load(x + 1.5)  # a pointer is moved by a block of f32 | offsets are integers


@triton.jit
def pointer_product(x, n, B: tl.constexpr):
    x * 2  # '*' is not defined on pointers | p + offsets


@triton.jit
def pointer_as_number(x, n, B: tl.constexpr):
    tl.exp(x)  # is a block of pointers | tl.load


@triton.jit
def stored_too_wide(x, n, B: tl.constexpr):
    tl.store(x, tl.zeros((B,), tl.float32))  # a block of shape [16] is stored through pointers of shape []


@triton.jit
def other_without_mask(x, n, B: tl.constexpr):
    tl.load(x, other=0.0)  # other= but no mask=


@triton.jit
def changes_shape(x, n, B: tl.constexpr):
    acc = 0.0
    for i in range(n):  # 'acc' has shape [] before the loop and [16] after a pass | tl.zeros
        acc += tl.load(x + i * B + tl.arange(0, B))


@triton.jit
def changes_type(x, n, B: tl.constexpr):
    acc = 0
    for i in range(n):  # 'acc' is i32 before the loop and f32 after a pass | the type it gets
        acc += tl.load(x + i)


@triton.jit
def set_in_loop(x, n, B: tl.constexpr):
    for i in range(n):
        y = tl.load(x + i)
    tl.store(x, y)  # 'y' is only set inside a loop | give it a value before


@triton.jit
def set_in_branch(x, n, B: tl.constexpr):
    if tl.program_id(0) > 0:
        y = 1
    tl.store(x, y)  # 'y' is only set under a condition


@triton.jit
def two_pointers(x, n, B: tl.constexpr):
    p = x
    if tl.program_id(0) > 0:
        p = x + n
    tl.store(p, 1.0)  # 'p' has two values after a condition of the running program: pointers that depend | give it a value


@triton.jit
def block_condition(x, n, B: tl.constexpr):
    if tl.arange(0, B) > 3:  # the condition is a block of shape [16] | tl.where
        tl.store(x, 1.0)


@triton.jit
def indexes_block(x, n, B: tl.constexpr):
    tl.store(x, tl.zeros((B,), tl.float32)[3])  # blocks are indexed with : and None only


@triton.jit
def assigns_element(x, n, B: tl.constexpr):
    y = tl.zeros((B,), tl.float32)
    y[0] = 1.0  # their elements cannot be assigned | tl.where


@triton.jit
def python_function(x, n, B: tl.constexpr):
    tl.store(x, plain(tl.load(x)))  # is an ordinary Python function | @tilewright.jit


@triton.jit
def recursive(x, n, B: tl.constexpr):
    endless(x)  # functions call each other without end


@triton.jit
def undefined(x, n, B: tl.constexpr):
    tl.store(x, missing)  # noqa: F821 'missing' is not defined


@triton.jit
def wrong_keyword(x, n, B: tl.constexpr):
    tl.load(x, masc=True)  # got an unexpected keyword argument 'masc'


@triton.jit
def wrong_axis(x, n, B: tl.constexpr):
    tl.sum(tl.zeros((B,), tl.float32), axis=1)  # axis 1 is not a dimension of a block of shape [16]


@triton.jit
def wrong_order(x, n, B: tl.constexpr):
    tl.make_block_ptr(x, (n, n), (n, 1), (0, 0), (B, B), (1, 1))  # does not name each of the 2 dimensions once


@triton.jit
def advances_pointer(x, n, B: tl.constexpr):
    tl.advance(x, (1,))  # tl.advance moves block pointers only | make_block_ptr


@triton.jit
def bits_of_floats(x, n, B: tl.constexpr):
    tl.load(x) & 1.0  # '&' is not defined on f32


@triton.jit
def fails_assertion(x, n, B: tl.constexpr):
    tl.static_assert(B > 100, "B is small")  # tl.static_assert failed: B is small


@triton.jit
def too_large(x, n, B: tl.constexpr):
    tl.zeros((4096, 4096), tl.float32)  # 16777216 elements, more than


@triton.jit
def numpy_inside(x, n, B: tl.constexpr):
    tl.store(x, np.exp(tl.load(x)))  # is an ordinary Python function


@triton.jit
def backwards(x, n, B: tl.constexpr):
    for i in range(n, 0, -1):  # the step of a range is -1 | count upwards
        tl.store(x + i, 0.0)


@triton.jit
def wandering(x, n, B: tl.constexpr):
    for i in range(n):  # pointer 'x' does not move by the same step
        tl.store(x, 1.0)
        x += i


@triton.jit
def races(x, n, B: tl.constexpr):
    tl.store(x + tl.arange(0, B), tl.program_id(0) * 1.0)  # several programs store different values | tl.atomic_add


@triton.jit
def leaves_the_array(x, n, B: tl.constexpr):
    at = tl.program_id(0) * 2 * B + tl.arange(0, B)
    tl.store(x + at, at * 1.0)  # a program stores element 111 of x, which has 64 | mask=offsets < n


@triton.jit
def reads_before(x, n, B: tl.constexpr):
    tl.store(x + tl.arange(0, B), tl.load(x + tl.arange(0, B) - 1))  # a program loads element -1 of x


@triton.jit
def block_or_wider(x, n, B: tl.constexpr):
    acc = tl.zeros((B,), tl.float32)
    for i in range(n):  # 'acc' has two values after a condition of the running program: | values of one type and shape
        if tl.load(x + i) > 0.0:
            acc = tl.zeros((2 * B,), tl.float32)
    tl.store(x + tl.arange(0, B), acc)


@triton.jit
def type_or_other(x, n, B: tl.constexpr):
    kind = tl.float32
    for i in range(n):  # 'kind' has two values after a condition of the running program: | values of one type and shape
        if tl.load(x + i) > 0.0:
            kind = tl.float16
    tl.store(x, tl.zeros((), kind))


@triton.jit
def trying(x, n, B: tl.constexpr):
    try:  # Try statements are not supported | check arguments before the launch
        tl.store(x, 1.0)
    except ValueError:
        tl.store(x, 2.0)


@triton.jit
def with_lambda(x, n, B: tl.constexpr):
    tl.store(x, (lambda v: v * 2)(tl.load(x)))  # `lambda v: v * 2` is not supported | @tilewright.jit


@triton.jit
def nested(x, n, B: tl.constexpr):
    def one():  # FunctionDef statements are not supported | define it outside
        return 1.0

    tl.store(x, one())


@triton.jit
def comprehension(x, n, B: tl.constexpr):
    parts = [tl.load(x + i) for i in range(4)]  # is not supported in block programs | tl.static_range
    tl.store(x, parts[0])
