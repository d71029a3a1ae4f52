select entry, claimed, digest, outcome, null::bigint as head from kfm.append(
    $1::int[], $2::bigint[],
    $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[],
    $10::int[], $11::text[], $12::bigint[], $13::text[], $14::bytea[],
    $15::int[], $16::text[], $17::text[], $18::text[], $19::text[], $20::bigint[], $21::bigint[],
    $22::int[], $23::bigint[]
)
union all
select partition, null, null, null, coalesce(head, 0) from kfm.heads_now($1::int[])
