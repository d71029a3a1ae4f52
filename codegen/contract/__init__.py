"""The checks that guard the released contract. Each takes a Tree and answers with what is wrong and what to do."""
