"""`fedurwkv compare`: strategies and baselines on the same sites, seed by seed, and what may be said of them.

words        what the user asks for, and the plan that follows from it
contestants  who takes part, and the settings of each of their runs
folders      the site folders of each seed, shared by all: as they are, each alone, and pooled
jobs         running what is not finished yet, one run after the other or several at once
tuning       the same number of trials for everyone, on the first seed's validation images
scores       the best models' scores, image by image, kept beside each run
statistics   paired differences: hierarchical bootstrap, signed ranks, Holm
findings     all numbers of the comparison, the content of compare.json
wording      what the numbers allow to be said
drawings, page, command
"""
