"""protoc plugin for the JSON Schemas of events and of a pack's files: one 2020-12 document per type."""

import json

from codegen.json_types import document_schema
from codegen.plugin import Files, run
from codegen.schema import Schema

PACK_FILES = ("Manifest", "PackTests")


def generate(schema: Schema) -> Files:
    """`schemas/<Event>.json` for each event, one for the envelope, and one for each sort of file of a pack."""
    topics = schema.topics()
    out: Files = {}
    for name, message, options in schema.events():
        document = document_schema(schema, message)
        document["title"] = name
        document["x-topic"] = topics[options.topic]
        document["x-spec-version"] = options.spec_version
        document["x-may-ignore"] = options.may_ignore
        out[f"schemas/{name}.json"] = json.dumps(document, indent=2) + "\n"
    envelope = document_schema(schema, schema.pool.FindMessageTypeByName("kfm.event.v1.Envelope"))
    out["schemas/Envelope.json"] = json.dumps(envelope, indent=2) + "\n"
    for name in PACK_FILES:
        document = document_schema(
            schema, schema.pool.FindMessageTypeByName(f"kfm.pack.v1.{name}"), closed=True
        )
        out[f"schemas/{name}.json"] = json.dumps(document, indent=2) + "\n"
    return out


if __name__ == "__main__":
    run(generate)
