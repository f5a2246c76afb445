// The log of the frames on the wire.

const ENTRIES_MAX = 400;

/** Removes credentials from a text: anything shaped like a token, and the value of its header. */
export function redact(text) {
  return text
    .replace(/eyJ[\w-]+\.[\w-]*\.[\w-]*/g, '[token]')
    .replace(/(Authorization:\s*Bearer )(?!\[token\])[^\\\r\n"]+/gi, '$1[token]')
    .replace(/(\\*"(?:token|accessToken|refreshToken)\\*":\s*\\*")[^"\\]*/g, '$1[token]');
}

/** Makes control characters visible; EOLs alone are heart-beats. */
export function legible(text) {
  if (/^[\r\n]+$/.test(text)) return '(heart-beat)';
  return text.replaceAll('\0', '^@');
}

export class FrameLog {
  #list;
  #paused = false;

  constructor(list) {
    this.#list = list;
  }

  add(direction, text) {
    if (this.#paused) return;
    const list = this.#list;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const entry = document.createElement('li');
    entry.className = direction;
    const time = document.createElement('time');
    time.textContent = new Date().toISOString().slice(11, 23);
    const arrow = document.createElement('span');
    arrow.textContent = direction === 'in' ? '← received' : '→ sent';
    const body = document.createElement('pre');
    body.textContent = legible(redact(text));
    entry.append(time, arrow, body);
    list.append(entry);
    while (list.children.length > ENTRIES_MAX) list.firstChild.remove();
    if (follows) this.follow();
  }

  /** Shows the newest. */
  follow() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }

  clear() {
    this.#list.replaceChildren();
  }

  set paused(paused) {
    this.#paused = paused;
  }
}
