// The messages of one conversation: in order, each once, with what is still on its way. Knows neither network nor page.

/** A message id is a version 1 UUID; its time as text that sorts. */
function position(id) {
  return id.slice(15, 18) + id.slice(9, 13) + id.slice(0, 8);
}

/** Whether the first id comes behind the second, which may be missing. */
export function isLater(id, other) {
  return !other || position(id) > position(other);
}

export class Timeline {
  /** Stored messages, oldest first. Within it there is no gap. */
  messages = [];
  /** Own messages that are not known to be stored: `{clientMessageId, content, at, failed}`, in the order of sending. */
  pending = [];
  /** Where older ones are to be asked for; null when there are none. Undefined before the first page. */
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

  /** Whether a message that came live is the one that follows. */
  follows(message) {
    return !message.prev || this.#ids.has(message.prev);
  }

  /** Takes messages in, in any order and any number of times; those of the user `me` are no longer on their way. */
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

  /** Forgets what is loaded, for a gap that is too wide to fill. */
  forget() {
    this.messages = [];
    this.#ids.clear();
    this.cursor = undefined;
  }
}
