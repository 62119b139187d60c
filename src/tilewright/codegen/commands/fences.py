"""Where the host must wait: before it reads what the machine writes or writes what the machine uses, and at the end."""

from __future__ import annotations

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Loop


def fenced(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The program with fences before host work and at its end, where commands may be under way."""
    out, busy = _block(items, False)
    return (*out, Fence()) if busy else out


def _block(items: tuple[Item, ...], busy: bool) -> tuple[tuple[Item, ...], bool]:
    out: list[Item] = []
    for i in items:
        match i:
            case Command():
                busy = True
                out.append(i)
            case Host():
                if busy:
                    out.append(Fence())
                busy = False
                out.append(i)
            case Loop():
                # An iteration starts as busy as the one before left off.
                _, after = _block(i.body, busy)
                body, after = _block(i.body, busy or after)
                out.append(Loop(i.var, i.lo, i.hi, body, i.step))
                busy = busy or after
            case Branch():
                then, one = _block(i.then, busy)
                orelse, other = _block(i.orelse, busy)
                out.append(Branch(i.cond, then, orelse))
                busy = one or other
            case _:
                out.append(i)
                busy = False
    return tuple(out), busy
