// The compression codecs of records. kafkajs brings gzip. A topic's `compression.type` or another producer may use any
// other codec, and a consumer that cannot read it makes no progress.
//
// Only decompression is implemented: this participant does not compress its own records, and the broker compresses them
// as the topic is configured.

import { createRequire } from 'node:module';
import kafkajs from 'kafkajs';
import { decompress as inflateZstd } from 'fzstd';
import { readLz4Frames } from './lz4.js';

const { CompressionCodecs, CompressionTypes, KafkaJSNonRetriableError } = kafkajs;
// snappyjs has no module syntax that Node's loader could analyze.
const snappy = createRequire(import.meta.url)('snappyjs');

/** The Java client's framing of snappy: this magic, two numbers of four bytes, then blocks with their length before them. */
const SNAPPY_FRAMES = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const SNAPPY_HEADER_BYTES = 16;

/** The number of codecs that three bits can encode. kafkajs treats an unknown codec as no compression. */
const CODECS = 8;

/** Registers all of Kafka's codecs with kafkajs. An unknown codec ends the consumer with an error that has its number. */
export function registerCodecs() {
  const readers = { Snappy: readSnappy, LZ4: readLz4Frames, ZSTD: (bytes) => Buffer.from(inflateZstd(bytes)) };
  for (const [name, read] of Object.entries(readers)) {
    CompressionCodecs[CompressionTypes[name]] = () => codec(name.toLowerCase(), read);
  }
  const gzip = CompressionCodecs[CompressionTypes.GZIP]();
  CompressionCodecs[CompressionTypes.GZIP] = () => codec('gzip', gzip.decompress);
  for (let type = Math.max(...Object.values(CompressionTypes)) + 1; type < CODECS; type += 1) {
    CompressionCodecs[type] = () => codec(`codec ${type}`, () => { throw new Error('this codec is not known here'); });
  }
}

/** Exported for the tests. */
export function codec(name, read) {
  return {
    compress() {
      throw new KafkaJSNonRetriableError(`nothing is written with ${name} here`);
    },
    async decompress(bytes) {
      try {
        return await read(bytes);
      } catch (cause) {
        // A retry would fail again. The error is therefore not retriable, so that the process ends instead of making no
        // progress.
        throw new KafkaJSNonRetriableError(`records compressed with ${name} cannot be read: ${cause.message}`);
      }
    },
  };
}

export function readSnappy(bytes) {
  const isFramed = bytes.subarray(0, SNAPPY_FRAMES.length).equals(SNAPPY_FRAMES);
  if (!isFramed) return Buffer.from(snappy.uncompress(bytes));
  const blocks = [];
  for (let at = SNAPPY_HEADER_BYTES; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    at += 4;
    if (at + length > bytes.length) throw new Error('a block is cut off');
    blocks.push(Buffer.from(snappy.uncompress(bytes.subarray(at, at + length))));
    at += length;
  }
  return Buffer.concat(blocks);
}
