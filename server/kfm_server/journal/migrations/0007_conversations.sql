-- The conversation of a session: its turns in the order in which they ended. `ended` is the offset of a finished
-- turn's last event: exact where two times would be equal.
alter table kfm.turns add column ended bigint;

update kfm.turns t set ended = (
    select j."offset" from kfm.journal j where j.turn_id = t.turn_id and j.turn_id <> '' order by sequence desc limit 1
) where phase = 'finished';

create index turns_ended on kfm.turns (session_id, ended) where ended is not null;

-- As in 0002, but for the turns: what finishes is found behind the events that were just inserted.
create or replace function kfm.append(
    e_partition int[], e_epoch bigint[],
    c_entry int[], c_tenant text[], c_principal text[], c_rpc text[], c_key text[],
    c_digest bytea[], c_outcome bytea[],
    r_entry int[], r_turn text[], r_sequence bigint[], r_topic text[], r_envelope bytea[],
    t_entry int[], t_turn text[], t_session text[], t_tenant text[], t_phase text[],
    t_wake bigint[], t_submitted bigint[],
    i_entry int[], i_id bigint[]
) returns table (entry int, claimed boolean, digest bytea, outcome bytea)
language plpgsql as $$
#variable_conflict use_column
declare
    locked record;
    epochs bigint[];
    heads bigint[];
    stands boolean[];
    refused int[];
    n int;
begin
    -- In partition order: two processes that share partitions must not wait for each other in a ring.
    for locked in
        select p.partition, p.epoch from kfm.partitions p
        where p.partition = any (e_partition) order by p.partition for no key update
    loop
        epochs[locked.partition] := locked.epoch;
    end loop;
    for n in 1 .. cardinality(e_partition) loop
        stands[n] := coalesce(epochs[e_partition[n]] = e_epoch[n], false);
        if not stands[n] then
            entry := n;
            claimed := false;
            return next;
        end if;
    end loop;

    -- After the fence: a request row without its events would swallow the retry. Sorted: unsorted, two
    -- processes deadlocked.
    if cardinality(c_entry) > 0 then
        with tried as (
            insert into kfm.requests (tenant_id, principal, rpc, key, digest, outcome)
            select c.tenant_id, c.principal, c.rpc, c.key, c.digest, c.outcome
            from unnest(c_entry, c_tenant, c_principal, c_rpc, c_key, c_digest, c_outcome)
                as c (entry, tenant_id, principal, rpc, key, digest, outcome)
            where stands[c.entry]
            order by c.tenant_id collate "C", c.principal collate "C", c.rpc collate "C", c.key collate "C"
            on conflict do nothing
            returning tenant_id, principal, rpc, key
        )
        select array_agg(c.entry) into refused
        from unnest(c_entry, c_tenant, c_principal, c_rpc, c_key)
            as c (entry, tenant_id, principal, rpc, key)
        where stands[c.entry] and not exists (
            select from tried t
            where (t.tenant_id, t.principal, t.rpc, t.key) = (c.tenant_id, c.principal, c.rpc, c.key)
        );
        if refused is not null then
            foreach n in array refused loop
                stands[n] := false;
            end loop;
            return query
            select c.entry, true, q.digest, q.outcome
            from unnest(c_entry, c_tenant, c_principal, c_rpc, c_key)
                as c (entry, tenant_id, principal, rpc, key)
            join kfm.requests q on (q.tenant_id, q.principal, q.rpc, q.key)
                = (c.tenant_id, c.principal, c.rpc, c.key)
            where c.entry = any (refused);
        end if;
    end if;

    -- Under the lock the last offset is the head: no gaps, and a reader that saw n has seen all below it.
    if cardinality(r_entry) > 0 then
        for n in 1 .. cardinality(e_partition) loop
            if stands[n] and heads[e_partition[n]] is null then
                heads[e_partition[n]] := coalesce((
                    select j."offset" from kfm.journal j
                    where j.partition = e_partition[n] order by j."offset" desc limit 1
                ), 0);
            end if;
        end loop;
        insert into kfm.journal (partition, "offset", epoch, turn_id, sequence, topic, envelope)
        select
            e_partition[r.entry],
            heads[e_partition[r.entry]] + row_number() over (partition by e_partition[r.entry] order by r.n),
            e_epoch[r.entry], r.turn_id, r.sequence, r.topic, r.envelope
        from unnest(r_entry, r_turn, r_sequence, r_topic, r_envelope) with ordinality
            as r (entry, turn_id, sequence, topic, envelope, n)
        where stands[r.entry];
    end if;

    if cardinality(t_entry) > 0 then
        insert into kfm.turns as old
            (turn_id, session_id, tenant_id, partition, phase, wake_at_us, submitted_us, ended)
        select distinct on (t.turn_id collate "C")
            t.turn_id, t.session_id, t.tenant_id, e_partition[t.entry], t.phase, t.wake_at_us, t.submitted_us,
            case when t.phase = 'finished' then (
                select j."offset" from kfm.journal j where j.turn_id = t.turn_id collate "C" and j.turn_id <> ''
                order by j.sequence desc limit 1
            ) end
        from unnest(t_entry, t_turn, t_session, t_tenant, t_phase, t_wake, t_submitted) with ordinality
            as t (entry, turn_id, session_id, tenant_id, phase, wake_at_us, submitted_us, n)
        where stands[t.entry]
        order by t.turn_id collate "C", t.n desc
        on conflict (turn_id) do update set
            phase = excluded.phase, wake_at_us = excluded.wake_at_us, ended = excluded.ended;
    end if;

    if cardinality(i_entry) > 0 then
        delete from kfm.inbox b using unnest(i_entry, i_id) as i (entry, id)
        where stands[i.entry] and b.partition = e_partition[i.entry] and b.id = i.id;
    end if;
end
$$;
