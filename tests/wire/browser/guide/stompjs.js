// @stomp/stompjs as a module.
export const { Client, Stomp } = window.StompJs;
