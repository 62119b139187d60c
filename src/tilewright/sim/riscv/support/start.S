# Entered by hart 0 after reset: floating point and custom instructions on, a stack, main, then the exit code to the host.
    .section .text.start, "ax"
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    li t0, 0x1e000              # mstatus.FS and mstatus.XS: both units usable
    csrs mstatus, t0
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, __stack_top
    call main
    call htif_exit
park:
    j park
