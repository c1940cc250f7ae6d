"""The checks in the order of their value: first that it runs, is right and fits, then how fast it is."""

from .again import other_allocator
from .encoders import encoders
from .ending import cancel, resume
from .ground import ground
from .harness import Check
from .memory import full_device, leaks, plans
from .offload import overlap, races
from .paths import every_path
from .speed import compiled, overhead, where_time_goes
from .velocities import precision, ratio

CHECKS = (
    Check(0, "ground", 5, ground, "a fused attention kernel; bytes that arrive; H200: 770-800 TFLOP/s, 40-55 GB/s"),
    Check(1, "every path", 62, every_path, "x_0 within 1e-4 (bf16: 3e-2), cosine above 0.9999 (0.99), no waits"),
    Check(2, "offload has no race", 18, races, "the same bits in every pass"),
    Check(3, "the ratio", 15, ratio, "the same bits with gradient; 1e-2 for other micro-batches and kernels"),
    Check(4, "plan against real", 120, plans, "peaks within 2 % or 0.3 GiB of the plan's"),
    Check(5, "overhead", 40, overhead, "at most 1.05 of the bare model calls"),
    Check(6, "where time goes", 25, where_time_goes, "H200: 45-55 % of check 0's product at micro-batch 4"),
    Check(7, "overlap", 25, overlap, "H200: at least 65 % of the copying hidden at micro-batch 4"),
    Check(8, "compile", 60, compiled, "a handful of graphs, no breaks, not slower; H200: 15 to 35 % faster"),
    Check(9, "out of memory", 24, full_device, "halved and completed; then advice"),
    Check(10, "cancel", 15, cancel, "the LoRA untouched; H200: at most 0.6 s, in the update 1.6 s"),
    Check(11, "leaks", 15, leaks, "grows by at most 1 MiB; at most 1 GiB stays"),
    Check(12, "precision", 20, precision, "autoencoder in bf16 within 0.02 a pixel, fp8 velocity within 0.1"),
    Check(13, "encoders", 26, encoders, "fp8 with 16 GiB free, bf16 with 32"),
    Check(14, "resume", 30, resume, "the same LoRA, bit for bit"),
    Check(15, "other allocator", 90, other_allocator, "checks 2 and 4 by cudaMallocAsync: the same"),
)
