// The messages of one conversation: in order, each once, with the unsent ones. Knows neither network nor page.

/** A message id is a version 1 UUID; its time as text that sorts. */
function position(id) {
  return id.slice(15, 18) + id.slice(9, 13) + id.slice(0, 8);
}

/** Whether the first id follows the second, which may be missing. */
export function isLater(id, other) {
  return !other || position(id) > position(other);
}

export class Timeline {
  /** Stored messages, oldest first, without gaps. */
  messages = [];
  /** Own messages that are not known to be stored: `{clientMessageId, content, at, failed}`, in the order of sending. */
  pending = [];
  /** Cursor of the older messages; null when there are none. Undefined before the first page. */
  cursor = undefined;

  #ids = new Set();

  get isLoaded() {
    return this.cursor !== undefined;
  }

  get newest() {
    return this.messages.at(-1);
  }

  has(id) {
    return this.#ids.has(id);
  }

  /** Whether a live message follows the newest one here. */
  follows(message) {
    return !message.prev || this.#ids.has(message.prev);
  }

  /** Adds messages, in any order and any number of times; those of the user `me` are no longer pending. */
  add(messages, me) {
    for (const message of messages) {
      if (message.senderId === me) {
        this.pending = this.pending.filter((pending) => pending.clientMessageId !== message.clientMessageId);
      }
      if (this.#ids.has(message.id)) continue;
      this.#ids.add(message.id);
      let at = this.messages.length;
      while (at > 0 && !isLater(message.id, this.messages[at - 1].id)) at -= 1;
      this.messages.splice(at, 0, message);
    }
  }

  /** Drops the loaded messages, for a gap that is too wide to fill. */
  forget() {
    this.messages = [];
    this.#ids.clear();
    this.cursor = undefined;
  }
}
