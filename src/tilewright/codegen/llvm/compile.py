"""LLVM IR text to machine code, assembly or optimised IR, in process."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from tilewright.codegen.llvm.control import SCHEDULED
from tilewright.util.errors import CodegenError


def compile_ir(text: str, target: Any, opt: int = 3, emit: Literal["obj", "asm", "ir"] = "obj") -> bytes | str:
    """Optimise LLVM IR ``text`` for ``target`` (triple, cpu, feature_string) and return what ``emit`` names.

    An object file (bytes, position independent), assembly text or IR text. CodegenError shows
    LLVM's message when the text is not valid.
    """
    import llvmlite.binding as llvm

    machine = _target_machine(target.triple, target.cpu, target.feature_string, opt)
    try:
        module = llvm.parse_assembly(text)
    except RuntimeError as error:
        raise CodegenError(
            f"LLVM rejects the emitted code: {error}", hint="this is a defect of the code generator: please report the kernel"
        ) from error
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=opt)
    options.slp_vectorization = False  # schedules form the vectors; it found nothing in our kernels
    passes = llvm.create_pass_builder(machine, options)
    manager = _short_pipeline() if opt and f"\n{SCHEDULED} = " in text else passes.getModulePassManager()
    manager.run(module, passes)
    if emit == "ir":
        return str(module)
    return machine.emit_object(module) if emit == "obj" else machine.emit_assembly(module)


def _short_pipeline() -> Any:
    """What scheduled code needs: memory of the frame to registers, cleaning up. The rest of LLVM's passes took four times
    as long and made none of the benchmarks faster; invariant code is moved out of loops when instructions are selected."""
    import llvmlite.binding as llvm

    manager = llvm.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    return manager


@cache
def _target_machine(triple: str, cpu: str, features: str, opt: int) -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        found = llvm.Target.from_triple(triple or llvm.get_process_triple())
    except RuntimeError as error:
        raise CodegenError(f"LLVM has no target for {triple!r}: {error}") from error
    return found.create_target_machine(cpu=cpu, features=features, opt=opt, reloc="pic", codemodel="default")
