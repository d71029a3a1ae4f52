select body from kfm.blobs where digest = $1
