"""One file per published table or figure, and what freezes anchors and executors."""
