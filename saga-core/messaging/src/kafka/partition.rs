//! Chooses a saga's home partition, to which every input of the saga is sent explicitly.

/// Returns the home partition for a saga's id as text: the partition that Java's default partitioner chooses for that
/// key.
///
/// Never panics: a topic without partitions counts as a topic with one.
pub fn home_partition(saga_id: &str, partition_count: i32) -> i32 {
    let positive = (murmur2(saga_id.as_bytes()) & 0x7fff_ffff) as i32;
    positive % partition_count.max(1)
}

/// MurmurHash2 by Austin Appleby, 32 bits, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These are the vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_javas() {
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, expected) in cases {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn home_partition_is_within_the_topic() {
        assert_eq!(home_partition("21", 1), 0);
        // -973932308 without its sign bit is 1173551340.
        assert_eq!(home_partition("21", 4), 1_173_551_340 % 4);
        assert_eq!(home_partition("21", 7), 1_173_551_340 % 7);
        assert_eq!(home_partition("21", 0), 0);
    }
}
