"""Random legal programs for a small Gemmini, with a bit of everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tilewright.sim.gemmini import Configuration, isa

DIM = 4
CONFIGURATION = Configuration(dim=DIM, spad_rows=96, acc_rows=48, max_bytes=8, bus_bytes=4)
BASE, SIZE = 0x1000, 4096


class Programs:
    """Draws one program: each command from what the state set so far allows."""

    def __init__(self, seed: int, configuration: Configuration = CONFIGURATION):
        self.r = random.Random(seed)
        self.c, self.unit = configuration, configuration.input_bytes
        self.size = SIZE * self.unit
        self.ld: dict[int, isa.ConfigLd] = {}
        self.st: isa.ConfigSt | None = None

    def scale(self) -> int:
        return isa.f32_bits(self.r.choice([1.0, 1.0, 0.5, 0.25, 1.5, -0.75, 0.013, 3.0, 1e-9, 1e9]))

    def load_scale(self) -> int:
        """The same, as the f16 that it is for f16 inputs."""
        return self.scale() if self.c.unscaled == isa.ONE else self.r.choice([0x3C00, 0x3C00, 0x3800, 0xBA00, 0x22A6, 0x0003, 0x7000])

    def program(self, length: int = 12) -> list[isa.Command]:
        r = self.r
        out: list[isa.Command] = [self.config_ex(), *(self.config_ld(m) for m in range(3)), self.config_st()]
        for at in range(0, 64, 16):  # something in the local memories to start from
            out.append(isa.ConfigLd(4, 0, DIM, self.c.unscaled))
            self.ld[0] = out[-1]  # type: ignore[assignment]
            out.append(isa.Mvin(BASE + 4 * r.randrange(self.size // 8), isa.Tile(at, DIM * self.c.blocks(self.unit), 4), 0))
        kinds = [self.config_ex, lambda: self.config_ld(r.randrange(3)), self.config_st, self.mvin, self.mvin, self.mvout, self.mvout]
        kinds += [self.strides, lambda: isa.Flush(r.randrange(2)), isa.Fence]
        while len(out) < 13 + length:
            if r.random() < 0.45:
                out += self.product(first=not any(isinstance(x, isa.Compute) for x in out[self.held_since :]))
            elif r.random() < 0.2:
                out += self.loop() if r.random() < 0.5 else self.convolution()
            else:
                out.append(r.choice(kinds)())
            if isinstance(out[-1], isa.ConfigEx):
                self.held_since = len(out)
        return out

    held_since = 0

    def config_ex(self) -> isa.ConfigEx:
        r = self.r
        ws = r.random() < 0.6
        a, b = r.choice([(0, 0), (0, 1), (1, 0)] if ws else [(0, 0), (1, 0), (1, 1)])
        self.ex = isa.ConfigEx(int(ws), r.randrange(2), 0, a, b, r.randint(1, 3), isa.ONE, r.choice([0, 0, 1, 3, 7]), r.randint(1, 3))
        return self.ex

    def strides(self) -> isa.ConfigEx:
        r = self.r
        a, c = r.randint(1, 3), r.randint(1, 3)
        self.ex = replace(self.ex, a_stride=a, c_stride=c)
        return isa.ConfigEx(strides_only=1, a_stride=a, c_stride=c, dataflow=r.randrange(2), activation=r.randrange(2))

    def config_ld(self, mvin: int) -> isa.ConfigLd:
        r = self.r
        self.ld[mvin] = isa.ConfigLd(
            4 * r.randrange(8), mvin, r.randint(DIM, 9), self.load_scale(), r.randrange(2), r.choice([0, 1, 1, 1, 2, 3])
        )
        return self.ld[mvin]

    def config_st(self) -> isa.ConfigSt:
        r = self.r
        pool = [0] * 9
        if r.random() < 0.3:
            orows, ocols = r.randint(1, 4), r.randint(1, 4)
            pool = [r.randint(1, 3), r.randint(1, 3), r.randrange(3), r.randrange(3), 5, r.randint(1, 3), r.randint(1, 3), orows, ocols]
        scale = isa.KEEP_SCALE if self.st and r.random() < 0.2 else self.scale()
        self.st = isa.ConfigSt(4 * r.randint(8, 12), r.randrange(2), scale, *pool)
        return self.st

    def local(self, rows: int, *, accumulator: bool, flag: int = 0) -> int:
        limit = CONFIGURATION.acc_rows if accumulator else CONFIGURATION.spad_rows
        row = self.r.randint(0, limit - rows)
        return (isa.ACCUMULATOR | (flag if self.r.random() < 0.5 else 0) if accumulator else 0) | row

    def mvin(self) -> isa.Mvin:
        r = self.r
        mvin, accumulator = r.randrange(3), r.random() < 0.5
        cfg = self.ld[mvin]
        wide = accumulator and not cfg.shrunk
        most = DIM // max(cfg.repeats, 1) if cfg.repeats > 1 else DIM * self.c.blocks(4 if wide else self.unit)
        cols, rows = r.randint(1, most), r.randint(1, DIM)
        span = (-(-cols // DIM) - 1) * cfg.block_stride + rows
        address = 0 if r.random() < 0.1 else BASE + 4 * r.randrange(self.size // 8)
        return isa.Mvin(address, isa.Tile(self.local(span, accumulator=accumulator, flag=isa.ACCUMULATE), cols, rows), mvin)

    def mvout(self) -> isa.Mvout:
        r, st = self.r, self.st
        assert st is not None
        accumulator = r.random() < 0.6
        address = BASE + 4 * r.randrange(self.size // 8)
        if st.pool_stride:
            return isa.Mvout(address, isa.Tile(self.local(st.orows * st.ocols, accumulator=accumulator), r.randint(1, DIM), 1))
        rows = r.randint(1, DIM)
        local = self.local(rows + DIM, accumulator=accumulator, flag=isa.FULL)
        cols = r.randint(1, DIM * self.c.blocks(4 if local & isa.FULL and accumulator else self.unit))
        return isa.Mvout(address, isa.Tile(local, cols, rows))

    def operand(self, stride: int = 1) -> isa.Tile:
        r = self.r
        address = isa.GARBAGE if r.random() < 0.15 else r.randint(0, CONFIGURATION.spad_rows - DIM * stride)
        return isa.Tile(address, r.randint(1, DIM), r.randint(1, DIM))

    def product(self, first: bool) -> Iterator[isa.Command]:
        r = self.r
        span = (DIM - 1) * self.ex.c_stride + 1
        result = isa.GARBAGE if r.random() < 0.1 else self.local(span, accumulator=r.random() < 0.6, flag=isa.ACCUMULATE)
        yield isa.Preload(self.operand(), isa.Tile(result, r.randint(1, DIM), r.randint(1, DIM)))
        yield isa.Compute(self.operand(self.ex.a_stride), self.operand(), first or r.random() < 0.5)

    def loop(self) -> Iterator[isa.Command]:
        """A loop_ws with the state it needs: no pooling, no repeats, blocks side by side, unit strides."""
        r = self.r
        i, j, k = r.choice([(1, 1, 1), (2, 1, 3), (1, 2, 2), (2, 3, 2), (3, 2, 1)])
        full, low, at, bt = r.randrange(2), r.randrange(2), *r.choice([(0, 0), (1, 0), (0, 1)])
        self.ex = isa.ConfigEx(1, 0, 0, at, bt)
        yield self.ex
        stride = 16
        for mvin, size in ((0, self.unit), (1, self.unit), (2, self.unit if low else 4)):
            self.ld[mvin] = isa.ConfigLd(stride * size, mvin, DIM, self.load_scale(), low if mvin == 2 else 0, 1)
            yield self.ld[mvin]
        self.st = isa.ConfigSt(stride * (4 if full else self.unit), r.randrange(2), self.scale())
        yield self.st
        yield isa.LoopBounds(i, j, k, *(r.randrange(DIM) for _ in range(3)))
        yield isa.LoopAddressesAB(BASE + 4 * r.randrange(64), BASE + 4 * r.randrange(64))
        yield isa.LoopAddressesDC(r.choice([0, BASE + 4 * r.randrange(64)]), r.choice([0, BASE + self.size // 2 + 4 * r.randrange(64)]))
        yield isa.LoopStridesAB(stride, stride)
        yield isa.LoopStridesDC(stride, stride)
        yield isa.LoopWs(r.randrange(2), full, low, 0, r.randrange(3), r.randrange(3), at, bt)

    def convolution(self) -> Iterator[isa.Command]:
        """A loop_conv_ws whose tile fits half of the memories; then the state that it changed is set again."""
        while True:
            conv, names = self.drawn()
            if _fits(conv, names):
                break
        r, forms = self.r, {**dict.fromkeys(names, 1), "pixels": conv["pixels"]}
        turned = {"a_transpose": int("trans_input_3120" in forms), "b_transpose": int("trans_weight_0132" in forms)}
        yield isa.ConfigEx(a_stride=conv["stride"] >> ("downsample" in forms), c_stride=1 + ("input_dilated" in forms), **turned)
        apart = conv["out_stride"] * (conv["batches"] if "trans_output_1203" in forms else 1)
        yield isa.ConfigSt(apart * self.unit, r.randrange(2), self.scale())
        n, k, rows, cols = (conv[x] for x in ("batches", "kernel", "in_rows", "in_cols"))
        pooled = r.random() < 0.3 and "trans_output_1203" not in forms
        pool = (r.randint(1, 3), r.randint(1, 3), r.randint(1, 3), r.randint(1, 3)) if pooled else (0, 0, 1, 1)
        size, step, porows, pocols = pool
        upad, lpad = (r.randrange(2), r.randrange(2)) if pooled else (0, 0)
        out = {x: conv[x] for x in ("orows", "ocols")}
        yield isa.ConvShape(conv["oc"], conv["ic"], rows, n, 0, conv["stride"], out["ocols"], porows, out["orows"])
        yield isa.ConvTile(k, pocols, size, step, 0, n, porows, pocols, conv["oc"])
        yield isa.ConvKernel(k, k, conv["ic"], *conv["pads"], lpad, cols)
        yield isa.ConvOutput(out["orows"], 0, upad, 0, conv["dilation"], conv["ic"], conv["oc"], conv["out_stride"], out["ocols"])
        inputs, weights, bias = (BASE + 4 * r.randrange(64) for _ in range(3))
        here = r.random() < 0.1  # operands that are in the scratchpad already
        yield isa.ConvAddressesWO(0 if here else weights, 0 if r.random() < 0.1 else BASE + self.size // 2 + 4 * r.randrange(64))
        yield isa.ConvAddressesBI(0 if r.random() < 0.3 else bias, 0 if here else inputs)
        yield isa.LoopConvWs(no_bias=r.randrange(2), a_half=r.randrange(3), b_half=r.randrange(3), no_pool=int(not pooled),
                             activation=r.randrange(2) if pooled else 0, **forms)  # fmt: skip
        for mvin in range(3):
            yield self.config_ld(mvin)
        yield self.config_st()
        yield self.config_ex()

    def drawn(self) -> tuple[dict[str, Any], set[str]]:
        """Sizes of a convolution, and the forms of its operands."""
        r = self.r
        forms = {
            n for n in ("wrot180", "trans_output_1203", "trans_weight_1203", "trans_weight_0132", "trans_input_3120") if r.random() < 0.3
        }
        if "trans_weight_0132" in forms:
            forms -= {"trans_weight_1203", "trans_input_3120"}
        halved = r.random() < 0.15
        if not halved and r.random() < 0.2:
            forms.add("input_dilated")
        stride, dilation, kernel = (2, 1, 1) if halved else (r.randint(1, 2), r.randint(1, 2), r.randint(1, 3))
        stride = 1 if "input_dilated" in forms else stride
        sizes: dict[str, Any] = {"stride": stride, "dilation": dilation, "kernel": kernel, "batches": r.randint(1, 3)}
        sizes |= {"orows": r.randint(1, 3), "ocols": r.randint(1, 5), "ic": r.randint(1, 6), "oc": r.randint(1, 6)}
        if r.random() < 0.2:
            forms, sizes["ic"], sizes["oc"] = forms | {"depthwise"}, 1, 1
        plain = not (halved or dilation > 1 or forms - {"depthwise"})
        sizes["pixels"] = r.randint(1, DIM // sizes["ic"]) if plain and sizes["ic"] <= DIM // 2 else r.randrange(2)
        height, width = (sizes[x] * stride + dilation * (kernel - 1) for x in ("orows", "ocols"))
        pads = (0, 0, 0, 0) if halved else tuple(r.randrange(2) for _ in range(4))
        left, right, up, down = pads
        if width <= left + right or height <= up + down:
            return self.drawn()
        apart = 1 + ("input_dilated" in forms)
        rows, cols = -(-(height - up - down) // apart), -(-(width - left - right) // apart)
        sizes |= {"pads": pads, "height": rows + up + down >> halved, "width": cols + left + right >> halved}
        sizes |= {"in_rows": rows + r.randrange(2), "in_cols": cols + r.randrange(2)}
        return {**sizes, "out_stride": sizes["oc"] + r.randrange(3)}, forms | ({"downsample"} if halved else set())


def _fits(conv: dict[str, Any], forms: set[str]) -> bool:
    """Whether double buffering leaves room for the tile."""

    def blocks(n: int) -> int:
        return -(-n // DIM)

    images, channels = (conv["ic"], conv["batches"]) if "trans_input_3120" in forms else (conv["batches"], conv["ic"])
    outer, inner = (conv["ic"], conv["oc"]) if "trans_weight_0132" in forms else (conv["oc"], conv["ic"])
    spad = blocks(channels) * images * conv["height"] * conv["width"] + blocks(outer) * conv["kernel"] ** 2 * inner
    acc = blocks(conv["oc"]) * conv["batches"] * conv["orows"] * conv["ocols"]
    return spad <= CONFIGURATION.spad_rows // 2 and acc <= CONFIGURATION.acc_rows // 2
