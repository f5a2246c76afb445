// The page: brings account, connection and conversations together with the elements of the document.

import { Account } from './account.js';
import { Conversations } from './conversations.js';
import { FrameLog } from './frames.js';
import { Link, State, TRANSPORT_CHOICES } from './link.js';
import { membersOf, nameOf, renderList, renderMessages, spell } from './view.js';

const TRANSPORT_KEY = 'tidings.transport';
/** This many pixels from an end of the messages count as the end. */
const NEAR = 80;
const CONTENT_CHARS_MAX = 4_000;

const $ = (id) => document.getElementById(id);

const log = new FrameLog($('log'));
const tap = (direction, text) => log.add(direction, text);
const account = new Account();
const link = new Link(account, tap);
const conversations = new Conversations(account, link);
account.tap = tap;

/** The conversation that is open. */
let current;

// ---- Login ----

let phone = '';

/** Handles a form: its button waits for the end of `act`, and `fault` shows errors. */
function onSubmit(form, fault, act) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = form.querySelector('button:not([type=button])');
    button.disabled = true;
    fault.textContent = '';
    try {
      await act();
    } catch (refusal) {
      fault.textContent = `${refusal.message}${refusal.retryAfter ? `, try again in ${refusal.retryAfter} s` : ''}.`;
    } finally {
      button.disabled = false;
    }
  });
}

onSubmit($('phone-form'), $('login-fault'), async () => {
  phone = $('phone').value.trim();
  const { expiresIn } = await account.requestCode(phone);
  $('code-hint').textContent = `Sent to ${phone}; valid for ${Math.round(expiresIn / 60)} minutes.`;
  showCodeForm(true);
});

onSubmit($('code-form'), $('login-fault'), async () => {
  await account.logIn(phone, $('code').value.trim());
  enter();
});

onSubmit($('token-form'), $('login-fault'), async () => {
  await account.useToken($('token').value.trim());
  enter();
});

$('other-phone').addEventListener('click', () => showCodeForm(false));

function showCodeForm(shown) {
  $('phone-form').hidden = shown;
  $('code-form').hidden = !shown;
  $('code').value = '';
  $(shown ? 'code' : 'phone').focus();
}

function enter() {
  $('login').hidden = true;
  $('chat').hidden = false;
  $('token').value = '';
  $('me').textContent = spell(account.user);
  choose(undefined);
  account.resume();
  link.open($('transport').value);
}

function leave(words) {
  link.close();
  conversations.clear();
  choose(undefined);
  log.clear();
  $('start-dialog').close();
  $('chat').hidden = true;
  $('login').hidden = false;
  showCodeForm(false);
  $('login-fault').textContent = words ? `You are logged out: ${words}.` : '';
  document.title = 'Tidings';
}

account.onended = leave;
$('log-out').addEventListener('click', async () => {
  const done = account.logOut();
  leave();
  await done;
});

// ---- Connection ----

link.onstate = (state, words) => {
  const shown = $('state');
  shown.dataset.state = state;
  shown.textContent = state;
  shown.title = words;
  $('connect').hidden = state !== State.RECONNECTING && state !== State.DISCONNECTED;
  showSend();
};

$('connect').addEventListener('click', () => (link.state === State.DISCONNECTED ? link.open() : link.retryNow()));

for (const [transport, name] of Object.entries(TRANSPORT_CHOICES)) $('transport').add(new Option(name, transport));
$('transport').value = localStorage.getItem(TRANSPORT_KEY) in TRANSPORT_CHOICES ? localStorage.getItem(TRANSPORT_KEY) : 'plain';
$('transport').addEventListener('change', () => {
  localStorage.setItem(TRANSPORT_KEY, $('transport').value);
  link.open($('transport').value);
});

// ---- Conversations ----

conversations.onchange = (changed) => {
  // One message may change the list many times in a moment.
  requestAnimationFrame(showList);
  if (!current) return;
  const known = conversations.find(current.id);
  if (!known) return choose(undefined);
  if (!changed || changed === current) showMessages();
};

function showList() {
  const all = conversations.sorted();
  renderList($('list'), all, account.user, current?.id);
  $('list-empty').hidden = all.length > 0;
  const { unread } = conversations;
  document.title = unread > 0 ? `(${unread}) Tidings` : 'Tidings';
}

$('list').addEventListener('click', ({ target }) => {
  const id = Number(target.closest('button')?.dataset.conversation);
  if (id) choose(conversations.find(id));
});

$('back').addEventListener('click', () => {
  const { id } = current;
  choose(undefined);
  document.querySelector(`[data-conversation="${id}"]`)?.focus();
});

function choose(conversation) {
  if (current) current.draft = $('text').value;
  current = conversation;
  $('chat').classList.toggle('reading', Boolean(conversation));
  $('conversation').hidden = !conversation;
  $('pane-empty').hidden = Boolean(conversation);
  $('messages').replaceChildren();
  $('to-end').hidden = true;
  $('older').textContent = '';
  showList();
  if (!conversation) return;
  $('title').textContent = nameOf(conversation, account.user);
  $('members').textContent = membersOf(conversation, account.user);
  $('text').value = conversation.draft ?? '';
  showSend();
  // A keyboard that pops up on a phone would hide the messages.
  $(matchMedia('(pointer: coarse)').matches ? 'title' : 'text').focus();
  showMessages({ toEnd: true });
  load(conversations.open(conversation));
}

/** Shows a failure to load messages in their place. */
function load(loading) {
  loading.catch(({ message }) => ($('older').textContent = `Could not load messages: ${message}.`));
}

const scroll = $('scroll');
const atEnd = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
/** Whether to keep the newest message in view. */
let following = true;

function showMessages({ toEnd = false } = {}) {
  const { timeline } = current;
  const follows = toEnd || following;
  const top = scroll.getBoundingClientRect().top;
  const anchor = [...$('messages').children].find((item) => item.matches('.message') && item.getBoundingClientRect().bottom > top);
  const place = anchor?.getBoundingClientRect().top;
  const acts = {
    retry: (pending) => conversations.retry(current, pending),
    discard: (pending) => conversations.discard(current, pending),
    readers: (id) => conversations.readers(current, id),
  };
  // Screen readers must not read out pages of history as news.
  scroll.ariaBusy = String(current.loading || !timeline.isLoaded);
  renderMessages($('messages'), current, account.user, acts);
  if (timeline.isLoaded) {
    const none = timeline.messages.length + timeline.pending.length === 0;
    $('older').textContent = timeline.cursor ? 'Scroll up for more' : none ? 'Nothing said yet' : 'This is where it began';
  } else {
    $('older').textContent = 'Loading…';
  }
  if (follows) scroll.scrollTop = scroll.scrollHeight;
  // Messages inserted above must not move the ones that the user is reading.
  else if (anchor?.isConnected) scroll.scrollTop += anchor.getBoundingClientRect().top - place;
  following = follows;
  if (!follows && current.unread > 0) $('to-end').hidden = false;
  see();
}

/** Reports the messages in view as read. */
function see() {
  if (current?.timeline.isLoaded && document.visibilityState === 'visible' && document.hasFocus() && atEnd()) {
    $('to-end').hidden = true;
    conversations.seen(current);
  }
}

scroll.addEventListener('scroll', () => {
  if (!current) return;
  following = atEnd();
  see();
  if (scroll.scrollTop < NEAR && current.timeline.isLoaded) load(conversations.loadOlder(current));
});
new ResizeObserver(() => following && (scroll.scrollTop = scroll.scrollHeight)).observe(scroll);
$('to-end').addEventListener('click', () => (scroll.scrollTop = scroll.scrollHeight));
addEventListener('focus', see);
document.addEventListener('visibilitychange', () => {
  see();
  // Conversations that others began meanwhile appear only in the list.
  if (document.visibilityState === 'visible' && link.state === State.CONNECTED) conversations.refresh().catch(() => {});
});

// ---- Writing ----

const text = $('text');

function showSend() {
  const length = [...text.value.trim()].length;
  $('send').disabled = link.state !== State.CONNECTED || length === 0 || length > CONTENT_CHARS_MAX;
  $('count').hidden = length < CONTENT_CHARS_MAX * 0.9;
  $('count').textContent = `${length} of ${CONTENT_CHARS_MAX} characters`;
}

text.addEventListener('input', showSend);
text.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('compose').requestSubmit($('send').disabled ? undefined : $('send'));
});

$('compose').addEventListener('submit', (event) => {
  event.preventDefault();
  if ($('send').disabled) return;
  const content = text.value.trim();
  text.value = '';
  showSend();
  following = true;
  conversations.send(current, content);
  text.focus();
});

// ---- Beginning a conversation ----

$('start').addEventListener('click', () => {
  $('start-form').reset();
  $('start-fault').textContent = '';
  $('start-dialog').showModal();
});
$('start-cancel').addEventListener('click', () => $('start-dialog').close());

onSubmit($('start-form'), $('start-fault'), async () => {
  const numbers = $('with').value.split(/[,;]+/).map((number) => number.replace(/\s/g, '')).filter(Boolean);
  const wrong = numbers.find((number) => !/^[1-9]\d{0,15}$/.test(number));
  if (wrong) throw new Error(`${wrong} is no user's number`);
  const conversation = await conversations.start(numbers.map(Number), $('topic').value.trim());
  $('start-dialog').close();
  choose(conversation);
});

// ---- Settings ----

$('copy').addEventListener('click', async () => {
  // Where a page has no clipboard, at least select the number.
  try {
    await navigator.clipboard.writeText(String(account.user));
    $('copy').textContent = 'Copied';
    setTimeout(() => ($('copy').textContent = 'Copy number'), 2_000);
  } catch {
    getSelection().selectAllChildren($('me'));
  }
});

function showLog(shown) {
  $('frames').hidden = !shown;
  $('log-toggle').setAttribute('aria-expanded', String(shown));
  if (shown) log.follow();
}

$('log-toggle').addEventListener('click', () => showLog($('frames').hidden));
$('log-close').addEventListener('click', () => {
  showLog(false);
  $('log-toggle').focus();
});
$('log-clear').addEventListener('click', () => log.clear());
$('log-pause').addEventListener('change', ({ target }) => (log.paused = target.checked));

// ---- Start ----

if (account.user) enter();
else leave();
