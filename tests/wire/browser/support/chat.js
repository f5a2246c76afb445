// A person at the page: actions with mouse and keyboard, by the names that a screen reader reads out.

import { eventually, rememberLogin } from './browser.js';
import { FIXED_CODE } from '../../js/support/server.js';

export class Person {
  constructor(page, server) {
    this.page = page;
    this.server = server;
  }

  /** Opens the page and logs in by one-time code. */
  async logIn(phone) {
    await this.visit();
    await this.page.getByLabel('Phone number').fill(phone);
    await this.page.getByRole('button', { name: 'Send code' }).click();
    await this.page.getByLabel('One-time code').fill(FIXED_CODE);
    await this.page.getByRole('button', { name: 'Log in' }).click();
    await this.isState('connected');
    ({ user: this.user, access: this.token } = await rememberLogin(this.page));
    return this;
  }

  visit() {
    return this.page.goto(this.server.base);
  }

  /** A page learns of a conversation that others make when it loads, or by its first message. */
  async reload() {
    await this.page.reload();
    await this.isState('connected');
  }

  /** Enters with an access token. */
  async enter(token) {
    await this.visit();
    await this.page.getByText('I have an access token').click();
    await this.page.getByLabel('Access token', { exact: true }).fill(token);
    await this.page.getByRole('button', { name: 'Enter' }).click();
    await this.isState('connected');
    ({ user: this.user } = await rememberLogin(this.page));
    return this;
  }

  isState(word) {
    return this.page.locator('#state', { hasText: new RegExp(`^${word}$`) }).waitFor();
  }

  /** Begins a conversation with these users, or opens the existing one. */
  async begin(users, title = '') {
    await this.page.getByRole('button', { name: 'New', exact: true }).click();
    await this.page.getByLabel('Numbers of the others').fill(users.join(', '));
    await this.page.getByLabel('Title, for a group').fill(title);
    await this.page.getByRole('button', { name: 'Begin' }).click();
    await this.page.getByRole('dialog').waitFor({ state: 'hidden' });
    await this.isLoaded();
  }

  /** Opens the conversation of the list that has this text. */
  async open(text) {
    await this.page.getByRole('navigation').getByRole('button').filter({ hasText: text }).click();
    await this.isLoaded();
  }

  isLoaded() {
    return this.page.locator('#older').filter({ hasText: /Nothing said yet|where it began|Scroll up/ }).waitFor();
  }

  get text() {
    return this.page.getByRole('textbox', { name: 'Message' });
  }

  async say(text) {
    await this.text.fill(text);
    await this.text.press('Enter');
  }

  /** Texts in the open conversation, from top to bottom. */
  messages() {
    return this.page.locator('.message .text').allTextContents();
  }

  hears(...texts) {
    return eventually(() => this.messages(), texts, 'the messages shown');
  }

  /** The delivery status of the newest own message. */
  status() {
    return this.page.locator('.message.mine .status').last().textContent();
  }

  /** The line of the frame log, joined. */
  async frames() {
    return (await this.page.locator('#log pre').allTextContents()).join('\n');
  }
}

let phones = 0;

/** A phone number that no other test uses. */
export function phone() {
  phones += 1;
  return `+49151${String(10_000_000 + process.pid % 10_000 * 1_000 + phones)}`;
}
