// Tests every codec of Kafka on bytes that the codecs' own tools have written.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import test from 'node:test';
import { gzipSync } from 'node:zlib';
import kafkajs from 'kafkajs';
import { readSnappy, registerCodecs } from '../src/codecs.js';
import { readLz4Frames } from '../src/lz4.js';

const { CompressionCodecs, CompressionTypes } = kafkajs;
const snappy = createRequire(import.meta.url)('snappyjs');
registerCodecs();

const TEXT = `{"orderId":"${'0123456789'.repeat(60)}"}`;
/** Compressed without the content's size, as Kafka's brokers do. */
const ZSTD = 'KLUv/QRY/QAAwHsib3JkZXJJZCI6IjAxMjM0NTY3ODkifQEAlrQqTXSHXTA=';
const LZ4 = 'BCJNGGRApyMAAAD/B3sib3JkZXJJZCI6IjAxMjM0NTY3ODkKAP//OlA3ODkifQAAAAAfN0YI';
/** Compressed with the content's size and a checksum after each block. */
const LZ4_WITH_CHECKSUMS = 'BCJNGHxAZgIAAAAAAAAVIwAAAP8HeyJvcmRlcklkIjoiMDEyMzQ1Njc4OQoA//86UDc4OSJ9RKZv+wAAAAAfN0YI';

const bytesOf = (base64) => Buffer.from(base64, 'base64');
const raw = (text) => Buffer.from(snappy.compress(Buffer.from(text)));

/** Returns snappy data in the Java client's framing: a header, then blocks with their length. */
function framed(...texts) {
  const block = (text) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(raw(text).length);
    return Buffer.concat([length, raw(text)]);
  };
  const header = Buffer.concat([Buffer.from([0x82]), Buffer.from('SNAPPY\0'), Buffer.from([0, 0, 0, 1, 0, 0, 0, 1])]);
  return Buffer.concat([header, ...texts.map(block)]);
}

test('kafkajs reads records of every codec', async () => {
  const written = {
    GZIP: gzipSync(TEXT),
    Snappy: framed(TEXT.slice(0, 100), TEXT.slice(100)),
    LZ4: bytesOf(LZ4),
    ZSTD: bytesOf(ZSTD),
  };
  for (const [name, type] of Object.entries(CompressionTypes)) {
    if (name === 'None') continue;
    const read = await CompressionCodecs[type]().decompress(written[name]);
    assert.ok(Buffer.isBuffer(read) && read.toString() === TEXT, name);
  }
});

test('other ways to write the same are read too', () => {
  assert.equal(readSnappy(raw(TEXT)).toString(), TEXT);
  assert.equal(readLz4Frames(bytesOf(LZ4_WITH_CHECKSUMS)).toString(), TEXT);
  assert.equal(readLz4Frames(Buffer.concat([bytesOf(LZ4), bytesOf(LZ4)])).toString(), TEXT + TEXT);
  // A block that compression does not shrink is stored uncompressed.
  const asItWas = Buffer.from('04224d186440a7030000806162630000000000000000', 'hex');
  assert.equal(readLz4Frames(asItWas).toString(), 'abc');
});

test('what cannot be read names its codec and is not tried again', async () => {
  for (const [type, name] of [[1, 'gzip'], [2, 'snappy'], [3, 'lz4'], [4, 'zstd'], [5, 'codec 5'], [7, 'codec 7']]) {
    const reading = CompressionCodecs[type]().decompress(Buffer.from([0x82, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    await assert.rejects(reading, (failed) => failed.message.includes(`compressed with ${name} cannot`) && !failed.retriable);
  }
});

test('LZ4 that is cut off or points outside is refused', () => {
  const whole = bytesOf(LZ4);
  for (const length of [5, 11, 20, whole.length - 6]) assert.throws(() => readLz4Frames(whole.subarray(0, length)));
  const before = Buffer.from('04224d186440a7050000001061ffff00', 'hex');
  assert.throws(() => readLz4Frames(before));
});
