-- Search for words. A policy lets no index of words be used: the operator is not leakproof, so rows are filtered by
-- tenant first, one by one. This function is the owner's: it asks for the tenant itself, before all else, and the index serves.
-- A word weighs the more, the fewer chunks have it. Of the chunks with the heaviest words, how often and how near to each
-- other they stand counts too. Of a word that 20,000 chunks have, no more of them are looked at: it says little.
create function kfm_memory.by_words(collections_ text[], words_ text, where_ jsonb, most int) returns setof text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
declare
    tenant constant text := current_setting('kfm.tenant', true);
    terms constant text[] := array(
        select lexeme from unnest(to_tsvector('english', words_)) order by length(lexeme) desc limit 16
    );
begin
    if tenant is null or tenant = '' then
        return;
    end if;
    return query
    with matched as materialized (
        select t.term, m.chunk_id from unnest(terms) as t (term) cross join lateral (
            select c.chunk_id from kfm_memory.chunks c
            where c.words @@ quote_literal(t.term)::tsquery and c.tenant_id = tenant
                and c.collection = any (collections_) and c.metadata @> where_
            limit 20000
        ) m
    ), total as materialized (
        select coalesce(sum(d.chunks), 0) as chunks from kfm_memory.documents d
        where d.tenant_id = tenant and d.collection = any (collections_)
    ), weighed as materialized (
        select term, ln(1 + (select chunks from total) / (1.0 + count(*)))::float8 as weight from matched group by term
    ), heaviest as materialized (
        select m.chunk_id, sum(w.weight) as weight from matched m join weighed w using (term)
        group by m.chunk_id order by 2 desc, 1 limit 200
    )
    select h.chunk_id from heaviest h join kfm_memory.chunks c
        on c.chunk_id = h.chunk_id and c.tenant_id = tenant and c.collection = any (collections_)
    order by h.weight * (1 + ts_rank_cd(
        c.words, (select string_agg(quote_literal(t), ' | ')::tsquery from unnest(terms) t), 1
    )) desc, h.chunk_id
    limit most;
end
$$;

revoke execute on function kfm_memory.by_words(text[], text, jsonb, int) from public;

-- Its owner is not bound by the policy of what it reads, where nobody works as the owner.
do $$
begin
    if exists (select from pg_roles where rolname = 'kfm_memory') and pg_has_role(current_user, 'kfm_memory', 'member') then
        grant execute on function kfm_memory.by_words(text[], text, jsonb, int) to kfm_memory;
        alter table kfm_memory.chunks no force row level security;
        alter table kfm_memory.documents no force row level security;
    end if;
end
$$;

-- Searches would read what is pending word by word.
alter index kfm_memory.chunks_words set (fastupdate = off);
