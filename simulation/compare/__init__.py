"""`fedurwkv compare`: strategies and baselines on the same sites, seed by seed, and what may be said of them.

command      the whole of it, from words to page
words        what the user asks for, and the plan that follows from it
folders      the site folders of each seed, shared by all: as they are, each alone, and pooled
contestants  who takes part, and the settings of each of their runs
jobs         running what is not finished yet, one run after the other or several at once
tuning       the same number of trials for everyone, on the first seed's validation images
scores       the best models' scores, image by image, kept beside each run
gathering    from finished runs to the scores of every contestant
statistics   paired differences: hierarchical bootstrap, signed ranks, Holm
findings     numbers by contestant, hospital and site
wording      what the numbers allow to be said
comparison   all of it together: compare.json and compare.csv
page         compare.html, its results in `results` and its pictures in `drawings`
"""
