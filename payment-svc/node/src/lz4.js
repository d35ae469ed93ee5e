// Reads LZ4 frames (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md). There is no package that is both
// maintained and free of binaries. Checksums are skipped: Kafka's record batches have their own, which the brokers check.

const MAGIC = 0x184d2204;
/** The bits of the frame's flags. */
const DICTIONARY = 1;
const CONTENT_CHECKSUM = 1 << 2;
const CONTENT_SIZE = 1 << 3;
const BLOCK_CHECKSUM = 1 << 4;
/** The bit of a block's length that marks an uncompressed block. */
const AS_IT_WAS = 0x80000000;
/** The minimum length of a copy. The encoded length does not include it. */
const COPY_MIN = 4;

/** Decompresses all frames in `bytes`, which follow one another. */
export function readLz4Frames(bytes) {
  const output = new Output(bytes.length * 4);
  let at = 0;
  while (at < bytes.length) at = readFrame(bytes, at, output);
  return output.bytes();
}

/** Decompresses one frame and returns the position of its end. */
function readFrame(bytes, begin, output) {
  if (bytes.readUInt32LE(begin) !== MAGIC) throw new Error('it is not an LZ4 frame');
  const flags = bytes.readUInt8(begin + 4);
  if (flags >> 6 !== 1) throw new Error(`LZ4 frames of version ${flags >> 6} are not known`);
  if (flags & DICTIONARY) throw new Error('the LZ4 frame needs a dictionary');
  // Magic, flags, block size, checksum of the header.
  let at = begin + 7 + (flags & CONTENT_SIZE ? 8 : 0);
  for (;;) {
    const word = bytes.readUInt32LE(at);
    at += 4;
    if (word === 0) return at + (flags & CONTENT_CHECKSUM ? 4 : 0);
    const length = word % AS_IT_WAS;
    if (at + length > bytes.length) throw new Error('a block is cut off');
    const block = bytes.subarray(at, at + length);
    if (word >= AS_IT_WAS) output.write(block);
    else readBlock(block, output);
    at += length + (flags & BLOCK_CHECKSUM ? 4 : 0);
  }
}

/** Decompresses a block of alternating literals and copies. The last literals have no copy after them. */
function readBlock(block, output) {
  let at = 0;
  const longer = (nibble) => {
    let length = nibble;
    for (let more = nibble === 15; more; at += 1) {
      const byte = block.readUInt8(at);
      length += byte;
      more = byte === 255;
    }
    return length;
  };
  while (at < block.length) {
    const token = block[at];
    at += 1;
    const literals = longer(token >> 4);
    if (at + literals > block.length) throw new Error('literals are cut off');
    output.write(block.subarray(at, at + literals));
    at += literals;
    if (at === block.length) return;
    const distance = block.readUInt16LE(at);
    at += 2;
    output.copy(distance, longer(token & 15) + COPY_MIN);
  }
}

class Output {
  #buffer;
  #length = 0;

  constructor(capacity) {
    this.#buffer = Buffer.allocUnsafe(Math.max(capacity, 64));
  }

  bytes() {
    return this.#buffer.subarray(0, this.#length);
  }

  write(bytes) {
    this.#reserve(bytes.length);
    this.#length += bytes.copy(this.#buffer, this.#length);
  }

  /** Copies the bytes written `distance` bytes before. The source may overlap with the output. */
  copy(distance, length) {
    if (distance === 0 || distance > this.#length) throw new Error('a copy begins before the data');
    this.#reserve(length);
    const end = this.#length + length;
    for (; this.#length < end; this.#length += 1) this.#buffer[this.#length] = this.#buffer[this.#length - distance];
  }

  #reserve(more) {
    if (this.#length + more <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe((this.#length + more) * 2);
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}
