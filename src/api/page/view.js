// Conversations and messages as elements. The text of users becomes text and nothing else.

const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

/** Messages of one sender within this time are grouped. */
const TOGETHER_MS = 5 * 60_000;

/** An element with text or elements in it. */
function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** A user's number in groups of four, as people read numbers. */
export function spell(user) {
  return String(user).replace(/\B(?=(\d{4})+$)/g, '\u2009');
}

/** The text as written: the server stores the `<` of markup as its entity. */
function plain(content) {
  return content.replaceAll('&lt;', '<');
}

function others(conversation, me) {
  return conversation.participants.map(({ userId }) => userId).filter((user) => user !== me);
}

export function nameOf(conversation, me) {
  if (conversation.title) return conversation.title;
  const users = others(conversation, me);
  return users.length === 1 ? `User ${spell(users[0])}` : `Group of ${users.length + 1}`;
}

export function membersOf(conversation, me) {
  if (conversation.kind === 'direct') return 'Direct conversation';
  return ['you', ...others(conversation, me).map(spell)].join(', ');
}

/** The list of conversations; `current` is the id of the open one. */
export function renderList(list, conversations, me, current) {
  reconcile(list, conversations, {
    key: ({ id }) => id,
    make: ({ id }) => {
      const button = element('button', '');
      button.dataset.conversation = id;
      return element('li', '', button);
    },
    update: (item, conversation) => {
      const { id, lastMessage, unread } = conversation;
      const button = item.firstChild;
      const preview = lastMessage ? (lastMessage.senderId === me ? 'You: ' : '') + plain(lastMessage.content) : 'Nothing said yet';
      const parts = [face(conversation, me), element('span', 'name', nameOf(conversation, me)), element('span', 'last', preview)];
      if (lastMessage) parts.push(timeOf(lastMessage.createdAt, sinceMidnight(lastMessage.createdAt) ? CLOCK : SHORT_DAY));
      if (unread > 0) parts.push(element('span', 'badge', String(unread), element('span', 'unseen', ' unread')));
      button.className = unread > 0 ? 'unread' : '';
      button.setAttribute('aria-current', String(id === current));
      button.replaceChildren(...parts);
    },
  });
}

function face(conversation, me) {
  const users = others(conversation, me);
  const sum = users.reduce((total, user) => total + user, 0);
  const made = element('span', `face hue-${sum % 8}`, conversation.kind === 'direct' ? String(users[0]).slice(-2) : String(users.length + 1));
  made.ariaHidden = 'true';
  return made;
}

/**
 * The messages of a conversation, then the pending ones. `acts` has `retry` and `discard` for failed ones,
 * and `readers(id)`.
 */
export function renderMessages(list, conversation, me, acts) {
  const { timeline } = conversation;
  const group = conversation.kind !== 'direct';
  const items = [];
  let before;
  const all = [
    ...timeline.messages.map((message) => ({ ...message, at: Date.parse(message.createdAt) })),
    ...timeline.pending.map((pending) => ({ ...pending, senderId: me, pending })),
  ];
  const lastMine = timeline.messages.findLast(({ senderId }) => senderId === me);
  for (const message of all) {
    const day = DAY.format(message.at);
    if (!before || DAY.format(before.at) !== day) items.push({ key: `day ${day}`, day });
    const first = items.at(-1).day !== undefined || before.senderId !== message.senderId || message.at - before.at > TOGETHER_MS;
    const mine = message.senderId === me;
    // A message keeps its element when the stored one replaces the pending one, so that it is not read out twice.
    const key = mine && message.clientMessageId ? `mine ${message.clientMessageId}` : message.id;
    const status = mine ? statusOf(message, message.id === lastMine?.id, acts, others(conversation, me).length) : '';
    items.push({ ...message, key, mine, first, status, named: group && first && !mine });
    before = message;
  }
  reconcile(list, items, {
    key: ({ key }) => key,
    make: (item) => (item.day ? element('li', 'day', item.day) : makeMessage(item)),
    update: (made, item) => item.day || updateMessage(made, item, acts),
  });
}

function statusOf(message, isLast, acts, others) {
  if (message.pending) return message.pending.failed ? `not sent: ${message.pending.failed}` : 'sending…';
  if (!isLast) return '';
  const readers = acts.readers(message.id);
  if (readers === 0) return 'sent';
  return others === 1 ? 'read' : `read by ${readers} of ${others}`;
}

function makeMessage({ mine, senderId, content }) {
  const from = element('p', 'from', mine ? 'You' : `User ${spell(senderId)}`);
  return element('li', '', from, element('p', 'text', plain(content)), element('p', 'meta'));
}

function updateMessage(made, { mine, first, status, named, at, pending, content }, acts) {
  const failed = Boolean(pending?.failed);
  made.className = ['message', mine && 'mine', first && 'first', pending && !failed && 'pending', failed && 'failed'].filter(Boolean).join(' ');
  const [from, text, meta] = made.children;
  from.classList.toggle('unseen', !named);
  if (text.textContent !== plain(content)) text.textContent = plain(content);
  const state = `${status} ${at}`;
  if (meta.dataset.state === state) return;
  meta.dataset.state = state;
  const parts = [timeOf(at, CLOCK)];
  if (status) parts.push(element('span', 'status', status));
  if (failed) {
    parts.push(action('Try again', () => acts.retry(pending)), action('Remove', () => acts.discard(pending)));
  }
  meta.replaceChildren(...parts);
}

function action(words, act) {
  const button = element('button', 'plain', words);
  button.type = 'button';
  button.addEventListener('click', act);
  return button;
}

function timeOf(at, format) {
  const date = new Date(at);
  const made = element('time', '', format.format(date));
  made.dateTime = date.toISOString();
  made.title = date.toLocaleString();
  return made;
}

function sinceMidnight(at) {
  return new Date(at).toDateString() === new Date().toDateString();
}

/** Makes the children of `parent` those of `items`, in their order; a child with the key of an item stays in place. */
function reconcile(parent, items, { key, make, update }) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const child = there.get(name) ?? make(item);
    there.delete(name);
    child.dataset.key = name;
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const child of there.values()) child.remove();
}
