"""Differential privacy of one hospital: the noisy step, what it costs, the ledger of it, and what is refused.

samplers, hooks     the gradient of each image by itself
clipping, noise     a step that no single patient moves by more than the bound
draws, phase        a phase of local training out of such steps
accounting          what steps cost, and the noise that a budget allows
ledger              what this hospital's patients have spent, on its own disk
policy, guard       what the hospital refuses to do, whoever asks
"""
