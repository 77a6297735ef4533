"""A day's worth of quotes through the synchronous twin, whose strategies are interrupted, forked and closed.

`make day` sends two million; the suite some thousands. Each strategy is a process that writes down what it was
handed, and each entry of each strategy is accounted for.
"""
