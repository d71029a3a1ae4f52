-- The request rows of a turn go with it. An outcome is a JSON array whose first element is a turn id, or empty; ids
-- hold no quotes.
create function kfm.turn_of(outcome bytea) returns text
language sql immutable parallel safe
return split_part(encode(outcome, 'escape'), '"', 2);

create index requests_turn on kfm.requests (kfm.turn_of(outcome) collate "C");
