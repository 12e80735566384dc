"""Reads `matches` as an outside consumer does, and decodes it with the committed schema file.

usage: consumer.py BOOTSTRAP SCHEMA_FILE SCHEMA_ID
Prints one line per match, `device,zone,event`, each once: copies are dropped by the header `seq`.
"""

import io
import json
import sys

import fastavro
from confluent_kafka import Consumer, TopicPartition


def take(last, seq):
    source, number = seq.rsplit("/", 1)
    if int(number) <= last.get(source, 0):
        return False
    if int(number) > last.get(source, 0) + 1:
        raise RuntimeError(f"records are missing before {seq}")
    last[source] = int(number)
    return True


def main():
    bootstrap, schema_file, schema_id = sys.argv[1:]
    with open(schema_file, encoding="utf-8") as file:
        schema = fastavro.parse_schema(json.load(file))
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "outside", "enable.auto.commit": False})
    partitions = consumer.list_topics("matches", timeout=10).topics["matches"].partitions
    for partition in sorted(partitions):
        _, end = consumer.get_watermark_offsets(TopicPartition("matches", partition), timeout=10)
        if end == 0:
            continue
        consumer.assign([TopicPartition("matches", partition, 0)])
        last, offset = {}, -1
        while offset + 1 < end:
            message = consumer.poll(10)
            if message is None or message.error():
                raise RuntimeError(f"no record of matches/{partition} after {offset}: {message and message.error()}")
            offset = message.offset()
            headers = {name: value.decode() for name, value in message.headers()}
            if not take(last, headers["seq"]):
                continue
            value = message.value()
            if value[0] != 0 or int.from_bytes(value[1:5], "big") != int(schema_id):
                raise RuntimeError(f"matches/{partition}/{offset} is not of schema {schema_id}")
            match = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
            print(",".join([match["device"], match["zone"], match["event"]]))
    consumer.close()


main()
