// The user's conversations as far as they are known here: a list, the opened timelines, read marks, and messages being
// sent. Fetches missed messages over REST, and receives new ones over the live connection.

import { Timeline, isLater } from './timeline.js';

const OUTBOX = 'tidings.outbox';
const PAGE = 50;
/** Pages of a gap that are filled; beyond them the timeline starts again at its end. */
const GAP_PAGES_MAX = 5;

export class Conversations {
  /** Called with the changed conversation, or without one when the list has changed. */
  onchange = () => {};

  #account;
  #link;
  #all = new Map();
  /** Conversations being fetched, because a message named them. */
  #unknown = new Map();
  /** Messages that were unsent when the user left the page, until their conversation is known. */
  #saved = JSON.parse(sessionStorage.getItem(OUTBOX) ?? '{}');

  constructor(account, link) {
    this.#account = account;
    this.#link = link;
    link.queues = {
      '/user/queue/messages': (message) => this.#arrived(message).catch(() => {}),
      '/user/queue/acks': (ack) => ack.replay && this.#confirm(ack).catch(() => {}),
      '/user/queue/receipts': (mark) => this.#marked(mark),
    };
    link.onconnected = () => this.#catchUp().catch(() => {});
  }

  find(id) {
    return this.#all.get(id);
  }

  /** Most recent message first. */
  sorted() {
    const at = ({ lastMessage, createdAt }) => lastMessage?.createdAt ?? createdAt;
    return [...this.#all.values()].sort((a, b) => (at(a) < at(b) ? 1 : -1));
  }

  get unread() {
    return this.sorted().reduce((sum, { unread }) => sum + unread, 0);
  }

  /** Fetches the whole list. */
  async refresh() {
    const found = new Set();
    for (let after = ''; after !== null; ) {
      const page = await this.#account.call('GET', `/conversations?limit=100${after && `&after=${after}`}`);
      for (const summary of page.conversations) found.add(this.#learn(summary).id);
      after = page.nextCursor;
    }
    for (const id of this.#all.keys()) if (!found.has(id)) this.#all.delete(id);
    this.onchange();
  }

  /** Begins a conversation with these users, or finds the existing one with a single user. */
  async start(participants, title) {
    const conversation = await this.#account.call('POST', '/conversations', { participants, ...(title && { title }) });
    return this.#learn(conversation);
  }

  /** Loads the newest messages and the read marks, once. */
  async open(conversation) {
    const { id, timeline } = conversation;
    if (timeline.isLoaded || conversation.loading) return;
    conversation.loading = true;
    try {
      const [page, { readMarks }] = await Promise.all([
        this.#account.call('GET', `/conversations/${id}/messages?limit=${PAGE}`),
        this.#account.call('GET', `/conversations/${id}/read-marks`),
      ]);
      timeline.add(page.messages, this.#account.user);
      timeline.cursor = page.nextCursor;
      for (const { userId, messageId } of readMarks) this.#mark(conversation, userId, messageId);
    } finally {
      conversation.loading = false;
    }
    this.onchange(conversation);
    // A message that arrived during the request may have had no predecessor to follow.
    const { lastMessage } = conversation;
    if (lastMessage && isLater(lastMessage.id, timeline.newest?.id)) await this.#fill(conversation);
  }

  /** Loads the page before the oldest message. */
  async loadOlder(conversation) {
    const { id, timeline } = conversation;
    if (!timeline.cursor || conversation.loading) return;
    conversation.loading = true;
    try {
      const page = await this.#account.call('GET', `/conversations/${id}/messages?limit=${PAGE}&cursor=${timeline.cursor}`);
      timeline.add(page.messages, this.#account.user);
      timeline.cursor = page.nextCursor;
    } finally {
      conversation.loading = false;
    }
    this.onchange(conversation);
  }

  /** Sends a message: it appears in the timeline at once, and stays marked until the server has it on disk. */
  send(conversation, content) {
    const pending = { clientMessageId: crypto.getRandomValues(new Uint32Array(4)).join('-'), content, at: Date.now() };
    conversation.timeline.pending.push(pending);
    this.#deliver(conversation, pending);
  }

  /** Sends a refused message again; under the same id it is stored once, even if it was stored before. */
  retry(conversation, pending) {
    pending.failed = undefined;
    this.#deliver(conversation, pending);
  }

  /** Removes a refused message. */
  discard(conversation, pending) {
    const { timeline } = conversation;
    timeline.pending = timeline.pending.filter((other) => other !== pending);
    this.#changed(conversation);
  }

  /** Marks the newest message as seen. */
  seen(conversation) {
    const { id, timeline, unread } = conversation;
    const { newest } = timeline;
    const mine = this.#account.user;
    if (!newest || (unread === 0 && newest.senderId === mine) || !isLater(newest.id, conversation.marks.get(mine))) return;
    const before = conversation.marks.get(mine);
    this.#mark(conversation, mine, newest.id);
    conversation.unread = 0;
    const forget = () => conversation.marks.set(mine, before);
    this.#link.send(`/app/messages/${newest.id}/read`, undefined, { 'conversation-id': id }).catch(forget);
    this.onchange(conversation);
  }

  /** How many of the other participants have read this message. */
  readers(conversation, id) {
    const others = conversation.participants.filter(({ userId }) => userId !== this.#account.user);
    return others.filter(({ userId }) => conversation.marks.has(userId) && !isLater(id, conversation.marks.get(userId))).length;
  }

  /** Drops everything, for the next user. */
  clear() {
    this.#all.clear();
    this.#saved = {};
    sessionStorage.removeItem(OUTBOX);
    this.onchange();
  }

  #learn(summary) {
    const { id, kind, title, participants, createdAt, lastMessage, unreadCount = 0 } = summary;
    const known = this.#all.get(id) ?? { id, timeline: new Timeline(), marks: new Map(), loading: false };
    if (this.#saved[id]) known.timeline.pending = this.#saved[id];
    delete this.#saved[id];
    this.#all.set(id, Object.assign(known, { kind, title, participants, createdAt, lastMessage, unread: unreadCount }));
    return known;
  }

  async #arrived(message) {
    const id = message.conversationId;
    const conversation = this.#all.get(id) ?? (await this.#ask(id));
    const { timeline, lastMessage } = conversation;
    if (isLater(message.id, lastMessage?.id)) {
      conversation.lastMessage = message;
      conversation.unread = message.senderId === this.#account.user ? 0 : conversation.unread + 1;
    }
    // Senders have read their own messages.
    this.#mark(conversation, message.senderId, message.id);
    if (!timeline.isLoaded) return this.#changed(conversation);
    if (!timeline.follows(message)) return this.#fill(conversation);
    timeline.add([message], this.#account.user);
    this.#changed(conversation);
  }

  /** Fetches a conversation that others have begun. Its summary counts the messages so far. */
  #ask(id) {
    const asked = this.#unknown.get(id) ?? this.#account.call('GET', `/conversations/${id}`).then((found) => this.#learn(found));
    this.#unknown.set(id, asked);
    return asked.finally(() => this.#unknown.delete(id));
  }

  #marked({ conversationId, userId, messageId }) {
    const conversation = this.#all.get(conversationId);
    if (!conversation) return;
    this.#mark(conversation, userId, messageId);
    this.onchange(conversation);
  }

  #mark({ marks }, user, message) {
    if (isLater(message, marks.get(user))) marks.set(user, message);
  }

  /** After each connect: fetches missed messages, then sends the unsent ones. */
  async #catchUp() {
    await this.refresh();
    const all = [...this.#all.values()];
    await Promise.all(all.filter(({ timeline }) => timeline.isLoaded).map((conversation) => this.#fill(conversation)));
    for (const conversation of all) {
      for (const pending of conversation.timeline.pending) if (!pending.failed) this.#deliver(conversation, pending);
    }
  }

  /** Fetches all messages after the newest one present. */
  async #fill(conversation) {
    conversation.gap = true;
    if (conversation.filling) return;
    conversation.filling = true;
    const { id, timeline } = conversation;
    try {
      for (let pages = 0; conversation.gap; pages += 1) {
        conversation.gap = false;
        if (pages === GAP_PAGES_MAX) timeline.forget();
        const after = timeline.newest ? `&after=${timeline.newest.id}` : '';
        const page = await this.#account.call('GET', `/conversations/${id}/messages?limit=100${after}`);
        timeline.add(page.messages, this.#account.user);
        if (!after) timeline.cursor = page.nextCursor;
        else conversation.gap ||= page.hasMore;
      }
    } finally {
      conversation.filling = false;
      this.#changed(conversation);
    }
  }

  #deliver(conversation, pending) {
    this.#changed(conversation);
    const { content, clientMessageId } = pending;
    // The session's own message is echoed as it was stored, and replaces the pending one.
    const sent = this.#link.send(`/app/conversations/${conversation.id}/send`, { content, clientMessageId }, { echo: 'true' });
    sent.catch((refusal) => {
      // It may have been stored: send it again, under the same id, once connected.
      if (refusal.code === 'disconnected') return;
      const wait = refusal.retryAfter ? `; try again in ${refusal.retryAfter} s` : '';
      pending.failed = refusal.message + wait;
      this.#changed(conversation);
    });
  }

  /** A message that was sent again had been stored before. */
  async #confirm({ conversationId, id }) {
    const conversation = this.#all.get(conversationId);
    if (!conversation || conversation.timeline.has(id)) return;
    await this.#arrived(await this.#account.call('GET', `/conversations/${conversationId}/messages/${id}`));
  }

  #changed(conversation) {
    const pending = [...this.#all.values()].filter(({ timeline }) => timeline.pending.length > 0);
    const outbox = Object.fromEntries(pending.map(({ id, timeline }) => [id, timeline.pending]));
    sessionStorage.setItem(OUTBOX, JSON.stringify({ ...this.#saved, ...outbox }));
    this.onchange(conversation);
  }
}
