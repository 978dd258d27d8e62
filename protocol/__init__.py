"""What both ends of the federation say to each other: settings, packed models, messages, errors.

Imports of ours: `strategies` alone (the groups of tensors), never torch.
"""
