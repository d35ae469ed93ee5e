// Checks that the consumer group belongs to this process's database. A second database behind a group would get half of
// the partitions and not have the rows of the first. Every committed offset therefore carries the id of the database in
// which its records were handled. No member handles a record before it knows that the group belongs to its database
// (saga-core/PARTICIPANTS.md, section 4).
//
// A member that is assigned a partition without an id claims it. Until partition 0 is claimed all other members wait. The
// broker assigns partition 0 to one member at a time, so if two databases join a new group together, one of them wins.

import { setTimeout as sleep } from 'node:timers/promises';

/** The interval at which a member checks if partition 0 has been claimed. */
const CLAIM_RETRY_MS = 100;

/** Parses the database's id and tick from an offset's metadata, if it has them: `db=6b0c… tick=17 topic=iOPC…`. */
export function markOf(metadata) {
  const word = (key) => metadata?.split(' ').find((each) => each.startsWith(key))?.slice(key.length);
  const database = word('db=');
  return database ? { database: database.toLowerCase(), tick: Number(word('tick=') ?? 0) } : undefined;
}

export class GroupDatabase {
  #pool;
  #admin;
  #group;
  #topic;
  #id;
  /** The database's own counter, raised when progress is recorded. */
  #tick;
  /** Next offsets, by partition, that are not recorded in the database yet. */
  #done = new Map();
  #assigned = new Set();
  #claiming;

  /** Throws if the group belongs to another database, or if the database is older than the group's offsets. */
  static async open(pool, admin, group, topic) {
    const found = new GroupDatabase();
    [found.#pool, found.#admin, found.#group, found.#topic] = [pool, admin, group, topic];
    // The offsets are read first: the database's ticks are never behind the ticks of an offset committed before.
    const marks = await found.#marks();
    const { rows } = await pool.query('SELECT id, ticks FROM database_identity');
    [found.#id, found.#tick] = [rows[0].id, Number(rows[0].ticks)];
    found.#refuseStranger(marks);
    if (marks.some(({ mark }) => mark?.tick > found.#tick)) {
      throw new Error(
        `the database is older than the offsets of its group ${group}: it was restored from a backup. Start payment-svc, ` +
          'which takes the group back to where the database stands',
      );
    }
    return found;
  }

  /** Returns the metadata for an offset that is committed now. */
  mark() {
    return `db=${this.#id} tick=${this.#tick}`;
  }

  assigned(partitions) {
    this.#assigned = new Set(partitions);
    this.#claiming = undefined;
  }

  /** Waits until the group is known to belong to this database; `commit(partition, offset)` claims a partition. */
  claim(commit) {
    this.#claiming ??= this.#claim(this.#assigned, commit).catch((failed) => {
      this.#claiming = undefined;
      throw failed;
    });
    return this.#claiming;
  }

  async #claim(assigned, commit) {
    while (assigned === this.#assigned) {
      const marks = await this.#marks();
      this.#refuseStranger(marks);
      const open = marks.filter(({ mark }) => mark === undefined);
      const here = open.filter(({ partition }) => assigned.has(partition));
      const isDecided = !open.some(({ partition }) => partition === 0) || assigned.has(0);
      if (isDecided && here.length === 0) return;
      // An offset of 0 means the same as no offset.
      if (isDecided) for (const { partition, offset } of here) await commit(partition, offset === '-1' ? '0' : offset);
      else await sleep(CLAIM_RETRY_MS);
    }
    // The assignment has changed: claim the new partitions.
    await this.claim(commit);
  }

  async #marks() {
    const [{ partitions }] = await this.#admin.fetchOffsets({ groupId: this.#group, topics: [this.#topic] });
    return partitions.map(({ partition, offset, metadata }) => ({ partition, offset, mark: markOf(metadata) }));
  }

  #refuseStranger(marks) {
    const stranger = marks.find(({ mark }) => mark !== undefined && mark.database !== this.#id);
    if (!stranger) return;
    const { partition, mark } = stranger;
    throw new Stranger(
      `group ${this.#group} belongs to database ${mark.database} (partition ${partition} of ${this.#topic}), ` +
        `and this process has database ${this.#id}`,
    );
  }

  /** Notes that all records below `next` are handled in this database. */
  done(partition, next) {
    this.#done.set(partition, next);
  }

  /**
   * Records the group's progress in the database, so that a backup contains it. Throws if the database was set back or
   * replaced while the process ran.
   */
  async note() {
    if (this.#done.size === 0) return;
    const done = this.#done;
    this.#done = new Map();
    const values = [this.#id, this.#tick, this.#group, this.#topic, [...done.keys()], [...done.values()]];
    let rows;
    try {
      ({ rows } = await this.#pool.query(NOTE, values));
    } catch (failed) {
      for (const [partition, next] of done) if (!this.#done.has(partition)) this.#done.set(partition, next);
      throw failed;
    }
    if (rows.length === 0) throw new Stranger(`the database went back behind tick ${this.#tick}, or was replaced`);
    this.#tick = Number(rows[0].ticks);
  }
}

/** The process uses a database that the group does not belong to, and must end. */
export class Stranger extends Error {}

/** Records the next offsets. The topic's id stays as a member that can read it has recorded it. */
const NOTE = `
  WITH ticked AS (
    UPDATE database_identity SET ticks = ticks + 1 WHERE id = $1 AND ticks >= $2 RETURNING ticks
  ), noted AS (
    INSERT INTO consumed (group_name, topic, partition, topic_id, next_offset)
    SELECT $3, $4, place.partition, '', place.next_offset
    FROM ticked, unnest($5::integer[], $6::bigint[]) AS place (partition, next_offset)
    ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
  )
  SELECT ticks FROM ticked`;
