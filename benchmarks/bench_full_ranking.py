"""MovieLens, each user's last film ranked among all: EASE on 1M and implicit ALS on 100K against the published numbers.

Writes benchmarks/results/full_ranking.json; data sets that are not given keep their figures.
Usage: .venv/bin/python benchmarks/bench_full_ranking.py [--ml-1m FOLDER] [--ml-100k FOLDER] [--seeds 1 2 3]
"""
