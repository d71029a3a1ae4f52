select epoch from kfm.partitions where partition = $1 for no key update
