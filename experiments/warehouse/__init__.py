"""Studies in the warehouse.

``floors`` plays every strategy with every executor on the three floors, ``robot_runners`` on problems of the League of
Robot Runners; ``pairs`` is what both share: it plays a pair, and keeps the tables. ``learning`` trains executors and
designers, seed by seed.
"""
