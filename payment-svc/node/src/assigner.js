// Assigns partitions to the members of the group by the protocol that librdkafka and the Java client call
// `cooperative-sticky`. Members of either kind can share a group, and any of them can lead it.
//
// In that protocol a partition never moves from one member to another in one step. The plan first leaves the partition
// out. Its owner revokes it and joins again; then the partition has no owner, and can be assigned. Members list the
// partitions that they own in the metadata that they join with. A kafkajs consumer owns none when it joins, because it
// stops all of them before.

import kafkajs from 'kafkajs';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;
/** The version of the metadata that lists the partitions that the member owns. */
const VERSION = 1;

/** The assigner for `partitionAssigners` of a consumer. */
export const cooperativeSticky = ({ cluster }) => ({
  name: 'cooperative-sticky',
  version: VERSION,

  protocol({ topics }) {
    const ownsNothing = Buffer.alloc(4);
    const metadata = Buffer.concat([MemberMetadata.encode({ version: VERSION, topics }), ownsNothing]);
    return { name: this.name, metadata };
  },

  async assign({ members, topics }) {
    const partitions = topics.flatMap((topic) =>
      cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => ({ topic, partition: partitionId })),
    );
    const owned = members.map(({ memberId, memberMetadata }) => ({ memberId, owned: ownedBy(memberMetadata) }));
    return plan(owned, partitions).map(({ memberId, given }) => ({
      memberId,
      memberAssignment: MemberAssignment.encode({ version: VERSION, assignment: byTopic(given) }),
    }));
  },
});

const nameOf = ({ topic, partition }) => `${topic}/${partition}`;

/**
 * Plans the assignment. Each member keeps its partitions up to an equal share, and partitions without an owner go to
 * members below their share. Partitions above a share are left out, and assigned once their owner has revoked them.
 */
export function plan(members, partitions) {
  const known = new Map(partitions.map((each) => [nameOf(each), each]));
  const claims = new Map();
  for (const { owned } of members) for (const each of owned) claims.set(nameOf(each), (claims.get(nameOf(each)) ?? 0) + 1);
  // Two members that claim the same partition both lose it: one of them is out of date, and it is unknown which.
  const isOwn = (each) => known.has(nameOf(each)) && claims.get(nameOf(each)) === 1;
  const plans = members.map(({ memberId, owned }) => ({ memberId, owns: owned.filter(isOwn), given: [] }));
  // The members that own most get the shares that are larger by one, so that the fewest partitions move.
  plans.sort((a, b) => b.owns.length - a.owns.length || (a.memberId < b.memberId ? -1 : 1));
  const [share, larger] = [Math.floor(known.size / plans.length), known.size % plans.length];
  const free = [...known].filter(([name]) => !claims.has(name)).map(([, each]) => each);
  for (const [index, one] of plans.entries()) {
    one.room = share + (index < larger ? 1 : 0);
    one.given = one.owns.slice(0, one.room);
  }
  for (const one of plans) one.given.push(...free.splice(0, one.room - one.given.length));
  return plans.map(({ memberId, given }) => ({ memberId, given }));
}

function byTopic(partitions) {
  const topics = {};
  for (const { topic, partition } of partitions) (topics[topic] ??= []).push(partition);
  return topics;
}

/** Reads the partitions that a member owns, which follow its topics and its user data in the metadata. */
export function ownedBy(metadata) {
  let at = 0;
  const int32 = () => metadata.readInt32BE((at += 4) - 4);
  const text = () => {
    const length = metadata.readInt16BE(at);
    at += 2 + length;
    return metadata.toString('utf8', at - length, at);
  };
  const each = (read) => Array.from({ length: Math.max(int32(), 0) }, read);
  const version = metadata.readInt16BE(0);
  at = 2;
  each(text);
  const userDataBytes = Math.max(int32(), 0);
  at += userDataBytes;
  if (version < 1 || at >= metadata.length) return [];
  return each(() => {
    const topic = text();
    return each(() => ({ topic, partition: int32() }));
  }).flat();
}
