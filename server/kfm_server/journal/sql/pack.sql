select archive from kfm.packs where digest = $1
