"""What resilient-redis costs and what it buys, measured beside redis-py and its peers.

    python -m benchmarks [NAME...] [--quick] [--json FILE] [--compare FILE] [--picture FILE]

Needs the extras `dev` and `bench`. The servers are real ones out of wheels.
"""
