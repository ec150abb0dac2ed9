"""Every strategy with every executor in the warehouse.

``floors`` plays them on the three floors, ``robot_runners`` on problems of the League of Robot Runners; ``pairs`` is
what both share: it plays a pair, and keeps the tables.
"""
