/* Gives scipy's OpenBLAS the standard names of the three routines that MLX's CPU matmul calls.
   scipy prefixes its private copy with "scipy_" so that it never collides; colliding is the aim. */
    .text
    .macro FORWARD name
    .globl \name
    .type \name, @function
\name:
    jmp scipy_\name@PLT
    .size \name, . - \name
    .endm

    FORWARD cblas_sgemm
    FORWARD cblas_dgemm
    FORWARD cblas_cgemm

    .section .note.GNU-stack, "", @progbits
